/** Linear layers with bfloat16 weights: they read half of the bytes that float32 does, and multiply twice as many numbers at once. */

import * as tf from "@tensorflow/tfjs";
import type { Activation, DividedLinear } from "../backend/ops.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { ColumnPart, ColumnPartOptions } from "./column_parts.ts";
import { keepsPacked } from "./packing.ts";
import { cast, tidied, transpose } from "./raw.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

const { float, bfloat16 } = DataType;

/** Parts of float32 weights -> a layer with bfloat16 weights, sums in float32. All of them stay the caller's. */
export function bfloat16Linear(
  backend: TensorflowBackend,
  parts: readonly ColumnPart[],
  activation: Activation,
  { transposed = false, modelSize }: ColumnPartOptions = {},
): DividedLinear {
  const prepared = parts.map(({ name, weight, bias }) => {
    const values = cast(backend, weight, float, bfloat16), columns = transposed ? transpose(backend, values) : values;
    const shift = tidied(() => cast(backend, bias ?? tf.fill([columns.shape[1]], 0), float, bfloat16));
    return { name, weights: [columns, shift] };
  });
  return {
    apply: (x) => {
      const input = cast(backend, x, float, bfloat16);
      const products = prepared.map(({ name, weights }) => {
        const [y] = backend.executeRaw("_MklNativeFusedMatMul", [
          attr.type("T", bfloat16),
          attr.bool("transpose_a", false),
          attr.bool("transpose_b", false),
          attr.int("num_args", 1),
          attr.string("fused_ops", activation === "gelu_new" ? ["BiasAdd", "GeluApproximate"] : ["BiasAdd"]),
          attr.bool("is_filter_const", keepsPacked(backend, "bfloat16", x.shape[0], modelSize)),
          attr.string("_kernel", "MklNameChangeOp"),
          attr.string("_weight", name),
        ], [input, ...weights]);
        const wide = backend.wrap(cast(backend, y, bfloat16, float)) as tf.Tensor2D;
        backend.free([y]);
        return wide;
      });
      backend.free([input]);
      return products;
    },
    dispose: () => backend.free(prepared.flatMap(({ weights }) => weights)),
  };
}
