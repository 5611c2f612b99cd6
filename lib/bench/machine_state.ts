/** What the machine has to give from minute to minute: a shared one gives less at times, and a measurement should say so. */

import { setTimeout as after } from "node:timers/promises";
import { readText } from "../util/proc.ts";
import { type ProcessorTimes, processorTimes, shareLeft } from "../util/processor.ts";

/** At one moment, while those who measure are asleep. */
export interface MachineState {
  /** Bytes per second that one thread copies, read and written counted. */
  bandwidth: number;
  /** The share of the processor that other programs use. */
  othersShare: number;
  /** The share of the processor's time, since the last look, that the host gave to other machines. Null where the system does not say. */
  stolenShare: number | null;
}

/** How long others are watched. */
const WATCH_SECONDS = 0.3;

/** Larger than caches that a program has to itself. */
const COPY_BYTES = 64e6;

/** Below this share of its cores, a measurement says little. */
const ENOUGH = 0.85;

/** Starts watching; the function that it returns has a look. */
export function watchMachine(): () => Promise<MachineState> {
  let last = times();
  const from = new Uint8Array(COPY_BYTES).fill(1), to = new Uint8Array(COPY_BYTES).fill(1);
  return async () => {
    const before = times(), cores = navigator.hardwareConcurrency;
    const stolen = before.stolen === null || last.stolen === null ? null : before.stolen - last.stolen;
    const stolenShare = stolen === null ? null : stolen / cores / (before.elapsed - last.elapsed);
    await after(1000 * WATCH_SECONDS);
    last = times();
    const start = performance.now();
    for (let i = 0; i < 3; i++) to.set(from);
    const seconds = (performance.now() - start) / 1000;
    return { bandwidth: 3 * 2 * COPY_BYTES / seconds, othersShare: 1 - shareLeft(before, last, cores), stolenShare };
  };
}

/** The states before each round and after the last, a line each. */
export function stateLines(states: readonly MachineState[]): string {
  return states.map(({ bandwidth, othersShare, stolenShare }, round) => {
    const when = round < states.length - 1 ? `Before round ${round}` : "At the end",
      percent = (share: number) => `${(100 * share).toFixed(1)}%`;
    const stolen = stolenShare === null || round === 0
      ? ""
      : `, ${percent(stolenShare)} of the last round's time was stolen`;
    return `${when} one thread copied ${(bandwidth / 1e9).toFixed(1)} GB/s, others use ${percent(othersShare)} of ` +
      `the processor${stolen}.`;
  }).join("\n");
}

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

/** `stolen` is what the host took from all cores together; null where there is no /proc/stat. */
function times(): ProcessorTimes & { stolen: number | null } {
  return { ...processorTimes(), stolen: stolenSeconds() };
}

function stolenSeconds(): number | null {
  const counts = readText("/proc/stat")?.split("\n")[0].match(/\d+/g);
  return counts ? Number(counts[7]) / 100 : null;
}
