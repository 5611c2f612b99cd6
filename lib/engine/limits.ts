/** What a model can be asked for: checked once, before anything is computed. */

import type { Parallelism } from "../backend/types.ts";

/** Throws a RangeError unless `maxTokens` is a whole number from 1 up. */
export function checkMaxTokens(maxTokens: number): void {
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 1) {
    throw new RangeError(`Cannot generate ${maxTokens} tokens: maxTokens must be a whole number from 1 up.`);
  }
}

/** Throws a RangeError unless a prompt of `promptLength` tokens and its answer fit into the model's `n_positions`. */
export function checkContext(promptLength: number, maxTokens: number, n_positions: number): void {
  const room = n_positions - promptLength;
  if (room < 1) {
    throw new RangeError(
      `Cannot use a prompt of ${promptLength} tokens: the model holds ${n_positions}, the answer included. ` +
        `Shorten it to ${n_positions - 1} or fewer.`,
    );
  }
  if (maxTokens > room) {
    throw new RangeError(
      `Cannot generate ${maxTokens} tokens: the prompt has ${promptLength} and the model holds ${n_positions}. ` +
        `Lower maxTokens to ${room}.`,
    );
  }
}

/**
 * Throws a RangeError unless lanes and threads are whole numbers from 1 up, every thread has a core, and every lane one of
 * `rows`.
 */
export function checkParallelism({ lanes, threads }: Parallelism, rows = Infinity): void {
  const cores = navigator.hardwareConcurrency;
  const [count, each] = [plural(lanes, "lane"), plural(threads, "thread")];
  for (const [name, value] of Object.entries({ lanes, threads })) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    throw new RangeError(`Cannot use ${count} of ${each}: ${name} must be a whole number from 1 up.`);
  }
  if (lanes * threads > cores) {
    throw new RangeError(
      `Cannot use ${count} of ${each}: this machine has ${
        plural(cores, "core")
      }, and lanes times threads must not be more.`,
    );
  }
  if (lanes > rows) {
    throw new RangeError(`Cannot divide ${plural(rows, "row")} into ${count}: each needs a row. Use ${rows} or fewer.`);
  }
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
