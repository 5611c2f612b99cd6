/** What the model says before anything is chosen: a number for every token of the vocabulary. */

import * as tf from "@tensorflow/tfjs";
import { type Batch, longest, padBatch, realTokens } from "../tokenizer/batch.ts";
import { CacheView } from "../gpt2/cache_view.ts";
import type { KvCache } from "./kv_cache.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { joinColumns } from "../backend/plain.ts";

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
  if (width > n_positions) {
    throw new RangeError(`Cannot use a prompt of ${width} tokens: the model holds ${n_positions}. Shorten it.`);
  }
  using cache = model.allocateCache(rows.map((row) => width - row.length), width, ONE_LANE);
  const logits = feed(model, cache, padBatch(rows, { padTokenId: 0 }).inputIds);
  try {
    const values = await logits.data() as Float32Array;
    return rows.map((_, row) => values.slice(row * V, (row + 1) * V));
  } finally {
    logits.dispose();
  }
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

const ONE_LANE = { lanes: 1, threads: navigator.hardwareConcurrency };

/**
 * Feeds tokens [B, T] after what `cache` holds, in one lane and operation by operation: the logits after the last of
 * them, [B, V]. The caller frees them, and does not use `tf.tidy` for it: the cache may grow, and has to outlive that.
 */
export function feed(model: GPT2, cache: KvCache, tokens: readonly (readonly number[])[]): tf.Tensor2D {
  const B = tokens.length, T = tokens[0].length, { ops } = model.backend;
  using _model = model.lifetime.use(), _cache = cache.lifetime.use();
  const [lane] = cache.lanes;
  cache.reserve(T);
  const logits = tf.tidy(() => {
    const slots = tf.tensor2d(Array.from({ length: T }, (_, i) => cache.length + i), [T, 1], "int32");
    const positions = tf.tensor2d(lane.positionIds(cache.length, T).flat(), [B, T], "int32");
    const view = new CacheView(ops, lane.tensors, slots);
    const logits = joinColumns(model.forward(tf.tensor2d(tokens.flat(), [B, T], "int32"), positions, view));
    if (!ops.writesInPlace) lane.adopt(view.written);
    return logits;
  });
  cache.length += T;
  return logits;
}
