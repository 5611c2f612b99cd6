/** Weights divided into groups of heads or hidden units; see layers.ts. */

import * as tf from "@tensorflow/tfjs";

/** From the first to before the last. */
export type Range = readonly [start: number, end: number];

/** Divides `count` things into `groups` ranges that differ by `unit` at most and begin at multiples of it. */
export function ranges(count: number, groups: number, unit = 1): Range[] {
  const units = Math.ceil(count / unit), used = Math.max(1, Math.min(groups, units));
  const starts = Array.from({ length: used + 1 }, (_, i) => Math.min(count, Math.floor(units * i / used) * unit));
  return starts.slice(1).map((end, i) => [starts[i], end]);
}

/** Some columns of a weight [K, M], or elements of a bias [M], side by side. */
export function columns<T extends tf.Tensor1D | tf.Tensor2D>(x: T, wanted: readonly Range[]): T {
  const axis = x.rank - 1, before = Array(axis).fill(0), whole = Array(axis).fill(-1);
  const cut = ([start, end]: Range) => tf.slice(x as tf.Tensor, [...before, start], [...whole, end - start]);
  return tf.tidy(() => tf.concat(wanted.map(cut), axis)) as T;
}

/** Some rows of a weight [K, M]: where the backend can, the same memory. */
export function rows(x: tf.Tensor2D, [start, end]: Range): tf.Tensor2D {
  return tf.slice(x, [start, 0], [end - start, -1]);
}
