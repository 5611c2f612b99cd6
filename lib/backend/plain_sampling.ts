/** What the sampler needs, in plain tfjs. */

import * as tf from "@tensorflow/tfjs";
import type { SamplingOps } from "./sampling.ts";

/** On any backend of tfjs. */
export const plainSamplingOps: SamplingOps = {
  gatherInRows(x, indices) {
    // All rows as one: with batchDims, the gather of tfjs's wasm backend (4.22) reads at wrong places.
    const [B, M, ...size] = x.shape,
      starts = tf.reshape(tf.mul(tf.range(0, B, 1, "int32"), tf.scalar(M, "int32")), [B, 1]);
    const places = tf.reshape(tf.add(indices, starts), [-1]);
    return tf.reshape(tf.gather(tf.reshape(x, [B * M, ...size]), places), [...indices.shape, ...size]);
  },

  replace(x, places, values) {
    return tf.tensorScatterUpdate(x, places, values) as tf.Tensor1D;
  },
};
