/** The operations of GPT-2 in plain tfjs, on any of its backends. A backend may bring faster ones with the same meaning. */

import * as tf from "@tensorflow/tfjs";
import { type AttentionParts, composeAttention, oneByOne } from "./attention.ts";
import { joinColumns } from "./join_columns.ts";
import type { Ops } from "./ops.ts";
import { plainSamplingOps } from "./plain_sampling.ts";
import { plainCacheOps, TensorCaches } from "./tensor_caches.ts";
import type { CachePolicy } from "./types.ts";

/** The layout of a KV cache that suits what computes whole rectangles, and makes new caches in each step. */
export const plainCachePolicy: CachePolicy = {
  bucketCost: 256, // about what the calls for one more bucket take
  emptySlotsAreFree: false,
  slotsFor: multipleOf16,
  roomFor: (rows) => rows,
};

/** The next multiple of 16 from `count` up, 16 at least: growing is rare then, and few slots are attended to in vain. */
export function multipleOf16(count: number): number {
  return 16 * Math.max(1, Math.ceil(count / 16));
}

/** The plain composition of tfjs operations: right everywhere, and what faster versions are tested against. */
export const plainOps: Ops = {
  writesInPlace: false,
  cacheTensors: (layers) => 2 * layers,
  cachedBytes: () => Float32Array.BYTES_PER_ELEMENT,
  sampling: plainSamplingOps,

  embed(table, ids) {
    return tf.gather(table, ids);
  },

  linear(weight, bias, { activation }) {
    return {
      apply: (x) => {
        const y = tf.add(tf.matMul(x, weight), bias) as tf.Tensor2D;
        return activation === "gelu_new" ? geluNew(y) : y;
      },
      dispose: () => tf.dispose([weight, bias]),
    };
  },

  head(wte) {
    return { apply: (x) => [tf.matMul(x, wte, false, true)], dispose() {} };
  },

  chain(first, second, x) {
    return second.apply(first.apply(x));
  },

  add(a, b) {
    return tf.add(a, b);
  },

  layerNorm(x, gain, bias, epsilon) {
    return tf.add(tf.mul(normalise(x, epsilon), gain), bias);
  },

  attention(bucket, group) {
    return composeAttention(plainAttentionParts, bucket, group);
  },

  splitByBucket(x, buckets) {
    if (buckets.length === 1) return [x];
    return tf.split(x, buckets.map(({ positions }) => positions.shape[0]));
  },

  joinBuckets(parts) {
    return parts.length === 1 ? parts[0] : tf.concat([...parts], 0);
  },

  rowPadding: () => ({ add: (x) => x, remove: (x) => x }),

  pick(x, rows) {
    return tf.gather(x, rows);
  },

  argMax(logits) {
    return tf.argMax(joinColumns(logits), -1) as tf.Tensor1D;
  },

  maxLogprob(logits) {
    // log softmax at the largest logit m: m − log Σ exp(l) = −log Σ exp(l − m)
    const all = joinColumns(logits), shifted = tf.sub(all, tf.max(all, -1, true));
    return tf.neg(tf.log(tf.sum(tf.exp(shifted), -1)));
  },

  createCaches: (...made) => new TensorCaches(plainCacheOps, ...made),
};

const plainAttentionParts: AttentionParts = {
  reshape: (x, shape) => tf.reshape(x, shape) as never,
  gather: (table, rows) => tf.gather(table, rows) as never,
  thirds: (qkv) => tf.split(qkv, 3, 1),
  columnsOf: (tokens) => tf.scalar(tokens.shape[1], "int32"),
  scores: (query, keys) => tf.matMul(query, keys, false, true),
  weigh: (weights, values) => tf.matMul(weights, values),
  writer({ caches }, group, locations) {
    const numbers = tf.reshape(locations, [-1, 1]) as tf.Tensor2D;
    return oneByOne((i, update) => {
      const cache = caches[group][i] as tf.Tensor4D, flat = tf.reshape<tf.Rank.R2>(cache, [-1, cache.shape[3]]);
      return tf.reshape(tf.tensorScatterUpdate(flat, numbers, tf.reshape(update, [-1, cache.shape[3]])), cache.shape);
    });
  },
};

/** [N, D] -> [N, D]: each row to mean 0 and variance 1. */
export function normalise(x: tf.Tensor2D, epsilon: number): tf.Tensor2D {
  const centred = tf.sub(x, tf.mean(x, -1, true));
  const variance = tf.mean(tf.square(centred), -1, true);
  return tf.mul(centred, tf.rsqrt(tf.add(variance, epsilon)));
}

/**
 * [N, M] -> [N, M]. GELU by its tanh approximation, as GPT-2 was trained with (Hendrycks and Gimpel 2016, section 2):
 * x/2 · (1 + tanh u) with u = √(2/π)·(x + 0.044715·x³), written as x · sigmoid(2u), which is the same and shorter.
 */
export function geluNew(x: tf.Tensor2D): tf.Tensor2D {
  const scale = 2 * Math.sqrt(2 / Math.PI);
  const inner = tf.mul(x, tf.add(tf.mul(tf.square(x), scale * 0.044715), scale));
  return tf.mul(x, tf.sigmoid(inner));
}
