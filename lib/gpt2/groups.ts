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

/**
 * Parts of a tensor along `axis`, side by side. One stretch of rows is, where the backend can, the memory of the whole.
 */
export function cut<T extends tf.Tensor>(x: T, axis: number, wanted: readonly Range[]): T {
  const slice = ([start, end]: Range) => {
    const before = Array(axis).fill(0), whole = Array(axis).fill(-1);
    return tf.slice(x as tf.Tensor, [...before, start], [...whole, end - start]) as T;
  };
  return wanted.length === 1 ? slice(wanted[0]) : tf.tidy(() => tf.concat(wanted.map(slice), axis)) as T;
}
