/**
 * TensorFlow's fused kernels for CPUs (oneDNN): several operations in one pass over memory.
 *
 * They are not part of TensorFlow's public interface, so probe.ts tries each before it is used; and not all of them run
 * outside captured functions.
 */

import type * as tf from "@tensorflow/tfjs";
import type { Activation } from "../backend/ops.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import type { ColumnPart } from "./column_parts.ts";

const T = attr.type("T", DataType.float);

/** [N, D] -> [N, D]: layer norm in one kernel. */
export function fusedLayerNorm(
  backend: TensorflowBackend,
  x: tf.Tensor2D,
  gain: tf.Tensor1D,
  bias: tf.Tensor1D,
  epsilon: number,
): tf.Tensor2D {
  return backend.execute("_MklLayerNorm", [T, attr.float("epsilon", epsilon)], [x, gain, bias])[0] as tf.Tensor2D;
}

/**
 * x [B, H, 1, K], y [B, H, K, M], or `transposed` [B, H, M, K] -> [B, H, 1, M]. With one row on the left this is up to twice as fast as
 * oneDNN's product, and this operation oneDNN leaves alone.
 */
export function productsOfRows(
  backend: TensorflowBackend,
  x: tf.Tensor4D,
  y: tf.Tensor4D,
  transposed: boolean,
): tf.Tensor4D {
  const types = ["Ta", "Tb", "Tout"].map((name) => attr.type(name, DataType.float));
  const attributes = [...types, attr.bool("adj_x", false), attr.bool("adj_y", transposed)];
  return backend.execute("BatchMatMulV3", attributes, [x, y])[0] as tf.Tensor4D;
}

/** How {@link fusedLinear} treats its weight. */
export interface FusedLinearOptions {
  /** What follows. */
  activation: Activation;
  /** The weight is [m, K], not [K, m]. */
  transposed?: boolean;
  /** Keep a copy of the weight in the order that the processor likes best. */
  packed?: boolean;
}

/** x [N, K], weight [K, m], bias [m] -> [N, m]: product, bias and activation in one kernel. */
export function fusedLinear(
  backend: TensorflowBackend,
  x: tf.Tensor2D,
  { name, weight, bias }: ColumnPart,
  { activation, transposed = false, packed = false }: FusedLinearOptions,
): tf.Tensor2D {
  const attributes = [
    T,
    attr.bool("transpose_a", false),
    attr.bool("transpose_b", transposed),
    attr.int("num_args", 1),
    attr.string("fused_ops", activation === "gelu_new" ? ["BiasAdd", "GeluApproximate"] : ["BiasAdd"]),
    attr.bool("is_filter_const", packed),
    attr.string("_kernel", "MklNameChangeOp"),
    attr.string("_weight", name), // a kernel of its own: the packed copy lives in the kernel
  ];
  return backend.execute("_MklNativeFusedMatMul", attributes, [x, weight, bias!])[0] as tf.Tensor2D;
}
