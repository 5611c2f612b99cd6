/**
 * Weights cut into groups of columns, so that the cores share a product: each computes some of its columns on one thread
 * (column parallelism, Shoeybi et al. 2019, section 3, between cores instead of GPUs).
 *
 * Threads inside one operation would do the same, but wait for each other at its end, asleep; waking up takes longer than
 * many of GPT-2's products. Parts are operations of their own, so a core that is done looks for more and stays awake.
 */

import * as tf from "@tensorflow/tfjs";
import { type Range, ranges } from "../util/ranges.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

/** Some of a weight's columns. Letters: K inputs, m of the M outputs. */
export interface ColumnPart {
  /** The weight's name, made unique: the kernel that packs this part's weight is its own. */
  name: string;
  /** [K, m], or [m, K] where the weight is kept transposed. */
  weight: tf.Tensor2D;
  /** [m], or none. */
  bias: tf.Tensor1D | null;
}

/** What else there is to know of parts. */
export interface ColumnPartOptions {
  /** Their weights are [m, K], not [K, m]. */
  transposed?: boolean;
  /** How many numbers the whole model has. Default: few. */
  modelSize?: number;
}

/** A part has at least so many columns. */
const LEAST_COLUMNS = 32;

/** Names must be unique in the process: two models may have weights of one name. */
let weights = 0;

/** A name for a part of the weight called `name`. */
export function partName(name: string): string {
  return `${name}.${weights++}`;
}

/** All of a weight [K, M] and its bias [M] as one part, which takes them over. */
export function wholePart(name: string, weight: tf.Tensor2D, bias: tf.Tensor1D): ColumnPart {
  return { name: partName(name), weight, bias };
}

/** Which of a weight's columns go into each part. */
export function columnRanges(backend: TensorflowBackend, columns: number): Range[] {
  return ranges(columns, Math.min(backend.sideBySide, Math.floor(columns / LEAST_COLUMNS)), 16);
}

/** Cuts weight [K, M] (with `transposed`, [M, K]) and bias [M] into parts. The tensors stay the caller's. */
export function columnParts(
  backend: TensorflowBackend,
  name: string,
  weight: tf.Tensor2D,
  bias: tf.Tensor1D | null,
  { transposed = false }: { transposed?: boolean } = {},
): ColumnPart[] {
  return columnRanges(backend, weight.shape[transposed ? 0 : 1]).map(([start, end]) => {
    const size = end - start;
    return {
      name: partName(name),
      // Slices of rows share the memory of the whole.
      weight: transposed ? tf.slice(weight, [start, 0], [size, -1]) : tf.slice(weight, [0, start], [-1, size]),
      bias: bias && tf.slice(bias, [start], [size]),
    };
  });
}

/** Frees them. */
export function disposeParts(parts: readonly ColumnPart[]): void {
  for (const { weight, bias } of parts) tf.dispose(bias ? [weight, bias] : weight);
}
