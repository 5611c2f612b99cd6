/** Logits straight from the model, for comparing them number by number. */

import assert from "node:assert/strict";
import { padBatch } from "../../lib/tokenizer/batch.ts";
import type { KvCache } from "../../lib/engine/kv_cache.ts";
import type { GPT2 } from "../../lib/gpt2/model.ts";
import { feed as feedTokens } from "../../lib/engine/logits.ts";

/** What {@link feed} may be told to do wrong, to see that it matters. */
export interface Mistakes {
  /** Takes padding for real tokens: no mask, and positions that count it. */
  ignorePadding?: boolean;
}

/** An empty cache for prompts that are padded on the left to the length of the longest. */
export function cacheFor(model: GPT2, rows: readonly number[][], { ignorePadding = false }: Mistakes = {}): KvCache {
  const width = Math.max(...rows.map((row) => row.length));
  return model.allocateCache(rows.map((row) => ignorePadding ? 0 : width - row.length), width);
}

/** Feeds T tokens of each row, op by op: the logits after the last of them, by row. */
export function feed(model: GPT2, cache: KvCache, tokens: readonly number[][]): number[][] {
  const logits = feedTokens(model, cache, tokens);
  try {
    return logits.arraySync();
  } finally {
    logits.dispose();
  }
}

/** The logits after the last token of each prompt, the prompts being fed in one batch. */
export function logitsOf(model: GPT2, rows: readonly number[][], mistakes?: Mistakes): number[][] {
  using cache = cacheFor(model, rows, mistakes);
  return feed(model, cache, padBatch(rows, { padTokenId: 0 }).inputIds);
}

/** The largest difference between two rows of numbers. NaN if there is a NaN. */
export function distance(a: readonly number[], b: readonly number[]): number {
  assert.equal(a.length, b.length);
  return a.reduce((largest, value, i) => {
    const difference = Math.abs(value - b[i]);
    return difference > largest || Number.isNaN(difference) ? difference : largest;
  }, 0);
}

/** Fails unless two rows of numbers are the same within `tolerance`. */
export function assertClose(actual: readonly number[], expected: readonly number[], tolerance: number, what: string) {
  const apart = distance(actual, expected);
  assert.ok(apart <= tolerance, `${what}: ${apart} apart, ${tolerance} allowed`);
}
