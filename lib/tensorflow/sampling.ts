/** What the sampler needs, on TensorFlow: tfjs's own gather reads its indices back to the host. */

import type { SamplingOps } from "../backend/sampling.ts";
import { plainSamplingOps } from "../backend/plain_sampling.ts";
import * as tf from "@tensorflow/tfjs";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

const { float, int32 } = DataType;

/** On a TensorFlow backend: at once, and in captures; in those that XLA compiles, with `compiled`. */
export function tensorflowSamplingOps(
  backend: TensorflowBackend,
  { compiled = false }: { compiled?: boolean } = {},
): SamplingOps {
  return {
    gatherInRows(x, indices) {
      const attributes = [
        attr.type("Tparams", x.dtype === "int32" ? int32 : float),
        attr.type("Tindices", int32),
        attr.type("Taxis", int32),
        attr.int("batch_dims", 1),
      ];
      return backend.execute("GatherV2", attributes, [x, indices, tf.scalar(1, "int32")])[0];
    },

    replace(x, places, values) {
      if (compiled) return plainSamplingOps.replace(x, places, values); // its programs own what they compute
      const column = tf.reshape(x, [-1, 1]), flat = tf.reshape(places, [-1]);
      const [changed] = backend.execute("InplaceUpdate", [attr.type("T", float)], [
        column,
        flat,
        tf.reshape(values, [-1, 1]),
      ]);
      return tf.reshape(changed, [-1]);
    },
  };
}
