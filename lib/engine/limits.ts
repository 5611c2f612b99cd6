/** What a model can be asked for: checked once, before anything is computed. */

import type { Parallelism } from "../backend/types.ts";
import { plural } from "../util/format.ts";

/** Throws a RangeError unless a count is a whole number from `least` to `most`. */
export function checkCount(name: string, count: number, least = 1, most = Number.MAX_SAFE_INTEGER): void {
  if (Number.isSafeInteger(count) && count >= least && count <= most) return;
  const limits = most === Number.MAX_SAFE_INTEGER ? `from ${least} up` : `from ${least} to ${most}`;
  throw new RangeError(`Cannot use ${name} ${count}: it must be a whole number ${limits}.`);
}

/** Throws a RangeError unless `maxTokens` is a whole number from 1 up. */
export function checkMaxTokens(maxTokens: number): void {
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 1) {
    throw new RangeError(`Cannot generate ${maxTokens} tokens: maxTokens must be a whole number from 1 up.`);
  }
}

/** Throws a RangeError unless the model holds a prompt of so many tokens. */
export function checkPrompt(promptLength: number, n_positions: number): void {
  if (promptLength <= n_positions) return;
  throw new RangeError(`Cannot use a prompt of ${promptLength} tokens: the model holds ${n_positions}. Shorten it.`);
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

/** Throws unless `inputIds` [B, T] can follow what a cache of B rows holds: tokens of the model, within its context. */
export function checkFollowing(
  inputIds: readonly (readonly number[])[],
  cache: { lengths: readonly number[] },
  { config: { vocab_size, n_positions } }: { config: { vocab_size: number; n_positions: number } },
): void {
  const { lengths } = cache;
  if (!Array.isArray(inputIds) || inputIds.length !== lengths.length) {
    throw new RangeError(
      `Cannot use inputIds of ${
        inputIds?.length ?? "no"
      } rows: the cache has ${lengths.length}. Pass an array of tokens for each.`,
    );
  }
  for (const [row, ids] of inputIds.entries()) {
    if (!Array.isArray(ids) || ids.length === 0) {
      throw new RangeError(`Cannot use inputIds[${row}]: it must be an array of one or more tokens.`);
    }
    if (lengths[row] + ids.length > n_positions) {
      throw new RangeError(
        `Cannot feed ${ids.length} tokens to row ${row}: it has ${lengths[row]} and the model holds ${n_positions}.`,
      );
    }
    for (const [i, id] of ids.entries()) {
      if (Number.isInteger(id) && id >= 0 && id < vocab_size) continue;
      throw new RangeError(
        `Cannot use inputIds[${row}][${i}]: it is ${id}. Token ids are whole numbers from 0 to ${vocab_size - 1}.`,
      );
    }
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
