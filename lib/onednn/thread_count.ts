/**
 * How many threads share a step: as many as there are processors that other programs leave. Threads wait for each other after every
 * call, so that one that itself waits for a processor holds up all of them.
 */

import { type ProcessorTimes, processorTimes, shareLeft } from "../util/processor.ts";

/** Seconds of steps in a row after which we look again, as the system counts in hundredths. */
const WATCHED = 0.2;
/**
 * Steps that are so many seconds apart do not follow each other. What others did meanwhile was in nobody's way; but where they left
 * processors, they have gone.
 */
const APART = 0.05;

/** Decides how many of so many threads are used. */
export class ThreadCount {
  #count: number;
  #before: ProcessorTimes;
  #ended = -Infinity;

  /** All of them, until it is known what others leave. `look` says what the processor's time went to. */
  constructor(private readonly most: number, private readonly look = processorTimes) {
    this.#count = most;
    this.#before = look();
  }

  /** A step begins, now, in seconds: how many threads it had better have. */
  begin(now = performance.now() / 1e3): number {
    const follows = now - this.#ended < APART;
    if (now - this.#before.elapsed < (follows ? WATCHED : APART)) return this.#count; // too short to tell
    const before = this.#before, after = this.#before = this.look();
    const left = Math.max(1, Math.round(this.most * shareLeft(before, after, this.most)));
    return this.#count = follows ? left : Math.max(left, this.#count);
  }

  /** It has ended. */
  end(now = performance.now() / 1e3): void {
    this.#ended = now;
  }
}
