/** Matrices side by side. */

import * as tf from "@tensorflow/tfjs";

/** Parts [N, m] side by side -> [N, M]; a single one is the whole. */
export function joinColumns(parts: readonly tf.Tensor2D[]): tf.Tensor2D {
  return parts.length === 1 ? parts[0] : tf.concat([...parts], 1);
}
