/** What the model says before anything is chosen: a number for every token of the vocabulary. */

import { type Batch, longest, realTokens } from "../tokenizer/batch.ts";
import { KvCache } from "./kv_cache.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { checkPrompt } from "./limits.ts";
import { Runner } from "./runner.ts";

/** A token that might come next. */
export interface Candidate {
  /** The token. */
  id: number;
  /** How likely the model holds it to be, from 0 to 1. */
  probability: number;
}

/**
 * The logits after the last token of each row: for each, one number per token of the vocabulary, the higher the likelier.
 * Throws a RangeError when the batch is none or the model cannot hold it.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { AutoModelForCausalLM, AutoTokenizer, nextTokenLogits, topTokens } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const [logits] = await nextTokenLogits(model, tokenizer("What comes up must"));
 * assert.equal(logits.length, tokenizer.vocabSize);
 * assert.equal(tokenizer.decode([topTokens(logits, 1)[0].id]), " be");
 * ```
 */
export async function nextTokenLogits(model: GPT2, inputs: Batch): Promise<Float32Array[]> {
  const { vocab_size: V, n_positions } = model.config;
  const rows = realTokens(inputs, { vocabSize: V });
  const width = longest(rows);
  checkPrompt(width, n_positions);
  using cache = new KvCache(model);
  const admitted = cache.admit({ slots: rows.map(({ length }) => length) });
  return await Runner.of(model).logits(cache, rows.map((tokens, i) => ({ row: admitted[i], tokens })));
}

/**
 * The `count` most likely tokens by their logits [V], the likeliest first: probabilities are the logits' softmax.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { topTokens } from "./logits.ts";
 *
 * const logits = [0.6, 0.1, 0.3].map(Math.log);
 * assert.deepEqual(topTokens(logits, 2).map(({ id }) => id), [0, 2]);
 * assert.ok(Math.abs(topTokens(logits, 1)[0].probability - 0.6) < 1e-9);
 * ```
 */
export function topTokens(logits: ArrayLike<number>, count: number): Candidate[] {
  const all = Array.from(logits);
  const largest = all.reduce((a, b) => Math.max(a, b), -Infinity); // so that exp() stays finite
  const total = all.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
  return all.map((logit, id) => ({ id, probability: Math.exp(logit - largest) / total }))
    .sort((a, b) => b.probability - a.probability || a.id - b.id)
    .slice(0, count);
}
