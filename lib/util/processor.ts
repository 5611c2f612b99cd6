/** What the processor's time goes to: this process, others, or nothing. */

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

/** Up to now. */
export function processorTimes(): ProcessorTimes {
  const { user, system } = process.cpuUsage(), cores = os.cpus();
  const elapsed = performance.now() / 1e3, idle = cores.reduce((sum, { times }) => sum + times.idle, 0) / 1e3;
  return {
    elapsed,
    idle: cores.length ? idle : elapsed * navigator.hardwareConcurrency, // where the system does not say, nobody is in the way
    own: (user + system) / 1e6,
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
