/** Weights divided into groups of heads or hidden units; see layers.ts. */

import * as tf from "@tensorflow/tfjs";
import type { Range } from "../util/ranges.ts";

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
