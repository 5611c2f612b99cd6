/** The operations of GPT-2 in plain tfjs, on any of its backends. A backend may bring faster ones with the same meaning. */

import * as tf from "@tensorflow/tfjs";
import type { Ops } from "./ops.ts";

/** What the mask adds to the score of a token that must not be seen. Finite, so that padding, which sees nothing, is too. */
const HIDDEN = -1e9;

/** The plain composition of tfjs operations: right everywhere, and what faster versions are tested against. */
export const plainOps: Ops = {
  writesInPlace: false,

  embed(table, ids) {
    return tf.gather(table, tf.reshape(ids, [-1])) as tf.Tensor2D;
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

  add(a, b) {
    return tf.add(a, b);
  },

  layerNorm(x, gain, bias, epsilon) {
    const centred = tf.sub(x, tf.mean(x, -1, true));
    const variance = tf.mean(tf.square(centred), -1, true);
    return tf.add(tf.mul(tf.mul(centred, tf.rsqrt(tf.add(variance, epsilon))), gain), bias);
  },

  splitHeads(qkv, ids, heads) {
    const [B, T] = ids.shape, size = qkv.shape[1] / 3 / heads;
    const split = tf.split(qkv, 3, 1).map((part) => tf.transpose(tf.reshape(part, [B, T, heads, size]), [0, 2, 1, 3]));
    return split as [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D];
  },

  mergeHeads(x) {
    const [B, H, T, size] = x.shape;
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [B * T, H * size]);
  },

  mask({ slots, padding }, newSlots) {
    const before = tf.less(slots, padding); // [B, 1, 1, S]
    const after = tf.greater(slots, newSlots); // [T, S]
    return tf.mul(tf.cast(tf.logicalOr(before, after), "float32"), HIDDEN);
  },

  attend(query, keys, values, mask) {
    return weigh(tf.matMul(query, keys, false, true), values, mask);
  },

  emptyCaches(shape, count) {
    return Array.from({ length: count }, () => tf.fill(shape, 0)); // made where it stays, not on the host
  },

  locateSlots(_rowStarts, slots) {
    return slots.clone();
  },

  writeSlots(cache, update, slots) {
    const S = cache.shape[2], T = update.shape[2], first = slots.dataSync()[0];
    const before = tf.slice(cache, [0, 0, 0, 0], [-1, -1, first, -1]);
    const after = tf.slice(cache, [0, 0, first + T, 0], [-1, -1, S - first - T, -1]);
    return tf.concat([before, update, after], 2);
  },

  lastToken(x, ids) {
    const [B, T] = ids.shape, D = x.shape[1];
    if (T === 1) return x.clone();
    return tf.reshape(tf.slice(tf.reshape(x, [B, T, D]), [0, T - 1, 0], [B, 1, D]), [B, D]);
  },

  argMax(logits) {
    return tf.argMax(joinColumns(logits), -1) as tf.Tensor1D;
  },

  maxLogprob(logits) {
    // log softmax at the largest logit m: m − log Σ exp(l) = −log Σ exp(l − m)
    const all = joinColumns(logits), shifted = tf.sub(all, tf.max(all, -1, true));
    return tf.neg(tf.log(tf.sum(tf.exp(shifted), -1)));
  },
};

/** Scores [B, H, T, S] of S values [B, H, S, D/H] for each of T queries, mask [B, 1, T, S] -> [B, H, T, D/H]: their mean. */
export function weigh(scores: tf.Tensor4D, values: tf.Tensor4D, mask: tf.Tensor4D): tf.Tensor4D {
  return tf.matMul(tf.softmax(tf.add(scores, mask)), values);
}

/** Parts [N, m] side by side -> [N, M]; a single one is the whole. */
export function joinColumns(parts: readonly tf.Tensor2D[]): tf.Tensor2D {
  return parts.length === 1 ? parts[0] : tf.concat([...parts], 1);
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
