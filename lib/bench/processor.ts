/** Whether a measurement had the processor to itself. */

import os from "node:os";
import process from "node:process";

/** How the processor's time was spent up to some moment, in seconds. */
export interface ProcessorTimes {
  /** On the clock. */
  elapsed: number;
  /** All cores of the machine together: with nothing to do. */
  idle: number;
  /** All threads of this process together. */
  own: number;
}

/** Below this share of its cores, a measurement says little. */
const ENOUGH = 0.85;

/** Starts watching; the function that it returns says, in a sentence, if other programs used the processor since then. */
export function watchProcessor(): () => string | null {
  const start = times();
  return () => {
    const share = shareLeft(start, times(), navigator.hardwareConcurrency);
    return share < ENOUGH
      ? `Other programs were using the processor: ${Math.round(100 * share)}% of it was left for this.`
      : null;
  };
}

/**
 * What share of `cores` cores a process had or could have had. A container may have few of many cores: then it is enough
 * that so many were idle, whatever the others did.
 */
export function shareLeft(from: ProcessorTimes, to: ProcessorTimes, cores: number): number {
  const left = to.idle - from.idle + to.own - from.own;
  return Math.min(1, left / cores / (to.elapsed - from.elapsed));
}

function times(): ProcessorTimes {
  const { user, system } = process.cpuUsage(), cores = os.cpus();
  const idle = cores.length ? cores.reduce((sum, { times }) => sum + times.idle, 0) / 1e3 : Infinity;
  return { elapsed: performance.now() / 1e3, idle, own: (user + system) / 1e6 };
}
