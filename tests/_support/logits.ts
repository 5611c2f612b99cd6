/** Logits straight from the model, for comparing them number by number. */

import assert from "node:assert/strict";
import { KvCache } from "../../lib/engine/kv_cache.ts";
import { Runner } from "../../lib/engine/runner.ts";
import type { GPT2 } from "../../lib/gpt2/model.ts";

// On a GPU, products of several rows would be of numbers rounded to TF32, and those of one row not.
if (!Deno.env.has("NVIDIA_TF32_OVERRIDE")) Deno.env.set("NVIDIA_TF32_OVERRIDE", "0");

/** The logits after the last token of each prompt, the prompts being fed in one step. */
export async function logitsOf(model: GPT2, prompts: readonly (readonly number[])[]): Promise<number[][]> {
  using cache = new KvCache(model);
  const rows = cache.admit({ slots: prompts.map(({ length }) => length) });
  const logits = await Runner.of(model).logits(cache, prompts.map((tokens, i) => ({ row: rows[i], tokens })));
  return logits.map((row) => Array.from(row));
}

/**
 * The logits after the last token of each text, of which none ever has company: they are fed one by one, each in one step.
 * The model is causal, so what a text that begins another gets comes out of the other's step.
 */
export async function logitsAlone(model: GPT2, texts: readonly (readonly number[])[]): Promise<number[][]> {
  const begins = (text: readonly number[], other: readonly number[]) => text.every((token, i) => token === other[i]);
  const whole: { tokens: readonly number[]; parts: number[] }[] = [], results: number[][] = [];
  for (const i of [...texts.keys()].sort((a, b) => texts[b].length - texts[a].length)) {
    const longer = whole.find(({ tokens }) => begins(texts[i], tokens));
    if (longer) longer.parts.push(i);
    else whole.push({ tokens: texts[i], parts: [i] });
  }
  for (const { tokens, parts } of whole) {
    using cache = new KvCache(model);
    const [row] = cache.admit({ slots: [tokens.length] });
    const wanted = tokens.map((_, after) => ({ after })); // of all, so that a size of one means a size of the other
    const logits = await Runner.of(model).logits(cache, [{ row, tokens, wanted }]);
    for (const i of parts) results[i] = Array.from(logits[texts[i].length - 1]);
  }
  return results;
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
