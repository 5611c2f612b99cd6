/** GPT-2's operations on WebGPU: they are recorded while a step is captured, and have no other use. */

import * as tf from "@tensorflow/tfjs";
import type { Recorder } from "../backend/expression.ts";
import type { Ops } from "../backend/ops.ts";
import { recordedOps } from "../backend/recorded_ops.ts";
import { type CacheTensorOps, plainCacheOps, TensorCaches } from "../backend/tensor_caches.ts";
import type { Packer, Weight } from "./pack.ts";

/** The operations. `packer` makes weights, `copyRows` copies rows of caches. */
export function webgpuOps(recorder: Recorder<Weight>, packer: Packer, copyRows: CacheTensorOps["copyRows"]): Ops {
  return {
    ...recordedOps(recorder),

    linear(values, bias, { activation, dtype }) {
      const [inputs, outputs] = values.shape, gelu = activation === "gelu_new";
      const weight: Weight = { ...packer.blocks(values, dtype), inputs, outputs, transposed: false };
      return {
        apply(x) {
          const product = { op: "linear", x: recorder.expressionOf(x), weight, bias, gelu } as const;
          return recorder.standIn(product, [x.shape[0], outputs]);
        },
        dispose: () => tf.dispose([weight.values, bias]),
      };
    },

    head(wte, { dtype }) {
      const [outputs, inputs] = wte.shape;
      const weight: Weight = { ...packer.rows(wte.clone(), dtype), inputs, outputs, transposed: true };
      return {
        apply(x) {
          const product = { op: "linear", x: recorder.expressionOf(x), weight, bias: null, gelu: false } as const;
          return [recorder.standIn(product, [x.shape[0], outputs])];
        },
        dispose: () => weight.values.dispose(),
      };
    },

    createCaches: (...made) => new TensorCaches({ ...plainCacheOps, copyRows }, ...made),
  };
}
