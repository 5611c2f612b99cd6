/**
 * The roofline: what this machine could do at most, and how much of that a step of the model uses.
 *
 * A decode step must read every weight and the cache once, whatever the batch size, and do about two operations per weight
 * for each row. Small batches wait for memory, large ones for arithmetic (Williams et al. 2009).
 */

import * as tf from "@tensorflow/tfjs";
import { type GPT2Config, parameterCount } from "./gpt2/config.ts";
import type { Dtype } from "./ops.ts";

/** What a machine could do at most, measured. */
export interface Roofs {
  /** Bytes per second from memory. */
  bandwidth: number;
  /** Floating-point operations per second in a large matrix product. */
  flops: number;
}

/** What one decode step of a batch has to do. */
export interface StepCost {
  /** Bytes read: the weights, and the keys and values of all slots. */
  bytes: number;
  /** Floating-point operations. */
  flops: number;
}

const BYTES: Record<Dtype, number> = { float32: 4, bfloat16: 2, int8: 1 };

/** The cost of feeding one token of each of `batchSize` rows, when `slots` slots of the cache are attended to. */
export function decodeStepCost(config: GPT2Config, dtype: Dtype, batchSize: number, slots: number): StepCost {
  const { n_layer, n_embd, n_positions } = config;
  // Of the two embeddings only the rows that are looked up are read; but the head reads all of wte.
  const weights = parameterCount(config) - n_positions * n_embd;
  const embedded = 2 * batchSize * n_embd * 4;
  const cached = 2 * n_layer * batchSize * slots * n_embd;
  return {
    bytes: weights * BYTES[dtype] + embedded + cached * 4,
    flops: batchSize * 2 * weights + 2 * cached,
  };
}

/**
 * Measures both roofs on tfjs's current backend, in about a second: the sum of an array much larger than the caches, and
 * the product of two large matrices; the best of a few runs each.
 */
export async function measureRoofs(): Promise<Roofs> {
  const numbers = 2 ** 26, side = 1536; // 256 MB; 9 MB a matrix
  using large = disposable(tf.fill([64, numbers / 64], 1));
  using a = disposable(tf.fill([side, side], 0.5));
  const readSeconds = await fastest(5, () => tf.sum(large.tensor, 1));
  const multiplySeconds = await fastest(5, () => tf.sum(tf.matMul(a.tensor as tf.Tensor2D, a.tensor as tf.Tensor2D)));
  return { bandwidth: numbers * 4 / readSeconds, flops: 2 * side ** 3 / multiplySeconds };
}

async function fastest(runs: number, work: () => tf.Tensor): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    const result = tf.tidy(work);
    await result.data();
    best = Math.min(best, (performance.now() - start) / 1000);
    result.dispose();
  }
  return best;
}

function disposable(tensor: tf.Tensor): Disposable & { tensor: tf.Tensor } {
  return { tensor, [Symbol.dispose]: () => tensor.dispose() };
}
