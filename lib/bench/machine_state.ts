/** What the machine has to give from minute to minute: a shared one gives less at times, and a bench should say so. */

import { setTimeout as after } from "node:timers/promises";

/** At one moment, while those who measure are asleep. */
export interface MachineState {
  /** Bytes per second that one thread copies, read and written counted. */
  bandwidth: number;
  /** The share of the processor that other programs use. Null where the system does not say. */
  othersShare: number | null;
  /** The share of the processor's time, since the last look, that the host gave to other machines. Null likewise. */
  stolenShare: number | null;
}

/** How long others are watched. */
const WATCH_SECONDS = 0.3;

/** Larger than caches that a program has to itself. */
const COPY_BYTES = 64e6;

/** Starts watching; the function that it returns has a look. */
export async function watchMachine(): Promise<() => Promise<MachineState>> {
  let last = await processorTicks();
  const from = new Uint8Array(COPY_BYTES).fill(1), to = new Uint8Array(COPY_BYTES).fill(1);
  return async () => {
    const before = await processorTicks(), stolenShare = share(last, before, "stolen");
    await after(1000 * WATCH_SECONDS);
    last = await processorTicks();
    const start = performance.now();
    for (let i = 0; i < 3; i++) to.set(from);
    const seconds = (performance.now() - start) / 1000;
    return { bandwidth: 3 * 2 * COPY_BYTES / seconds, othersShare: share(before, last, "busy"), stolenShare };
  };
}

/** The states before each round and after the last, a line each. */
export function stateLines(states: readonly MachineState[]): string {
  return states.map(({ bandwidth, othersShare, stolenShare }, round) => {
    const when = round < states.length - 1 ? `Before round ${round}` : "At the end",
      percent = (share: number) => `${(100 * share).toFixed(1)}%`;
    const others = othersShare === null ? "" : `, others use ${percent(othersShare)} of the processor`;
    const stolen = stolenShare === null || round === 0
      ? ""
      : `, ${percent(stolenShare)} of the last round's time was stolen`;
    return `${when} one thread copied ${(bandwidth / 1e9).toFixed(1)} GB/s${others}${stolen}.`;
  }).join("\n");
}

/** Hundredths of a second of all cores. */
interface Ticks {
  busy: number;
  stolen: number;
  total: number;
}

/** Up to now; null where there is no /proc/stat. */
async function processorTicks(): Promise<Ticks | null> {
  const text = await Deno.readTextFile("/proc/stat").catch(() => null);
  if (text === null) return null;
  const [user, nice, system, idle, waiting, interrupts, softInterrupts, stolen] = text.split("\n")[0].match(/\d+/g)!
    .map(Number);
  const busy = user + nice + system + interrupts + softInterrupts;
  return { busy, stolen, total: busy + stolen + idle + waiting };
}

function share(from: Ticks | null, to: Ticks | null, what: "busy" | "stolen"): number | null {
  return from && to ? (to[what] - from[what]) / Math.max(1, to.total - from.total) : null;
}
