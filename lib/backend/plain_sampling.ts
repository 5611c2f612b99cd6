/** What the sampler needs, in plain tfjs. */

import * as tf from "@tensorflow/tfjs";
import type { SamplingOps } from "./sampling.ts";

/** On any backend of tfjs. */
export const plainSamplingOps: SamplingOps = {
  gatherInRows(x, indices) {
    return tf.gather(x, indices, 1, 1);
  },
};
