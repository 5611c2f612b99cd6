/**
 * TensorFlow's fused kernels for CPUs (oneDNN): several operations in one pass over memory.
 *
 * They are not part of TensorFlow's public interface: a build may lack one, or have it with another meaning. So each is
 * tried against the plain operations on a small input before it is used, inside a captured function, which is the only
 * place where all of them run.
 */

import * as tf from "@tensorflow/tfjs";
import { type LinearOptions, plainOps } from "../ops.ts";
import { attr, DataType } from "./attributes.ts";
import type { TensorflowBackend } from "./backend.ts";

const T = attr.type("T", DataType.float);

/** The kernels that may be there, by what they fuse. */
export const FUSED = ["layerNorm", "linear"] as const;

/** One of {@link FUSED}. */
export type Fused = typeof FUSED[number];

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

/** How {@link fusedLinear} treats its weight. */
export interface FusedLinearOptions extends Pick<LinearOptions, "name" | "activation"> {
  /** The weight is [M, K], not [K, M]. */
  transposed?: boolean;
  /** Keep a copy of the weight in the order that the processor likes best: dear in memory, worth it for the head. */
  packed?: boolean;
}

/** x [N, K], weight [K, M], bias [M] -> [N, M]: product, bias and activation in one kernel. */
export function fusedLinear(
  backend: TensorflowBackend,
  x: tf.Tensor2D,
  weight: tf.Tensor2D,
  bias: tf.Tensor1D,
  { name, activation = "none", transposed = false, packed = false }: FusedLinearOptions,
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
  return backend.execute("_MklNativeFusedMatMul", attributes, [x, weight, bias])[0] as tf.Tensor2D;
}

/** Tries each kernel against the plain operations. What is missing or wrong is not in the result. */
export async function workingKernels(backend: TensorflowBackend): Promise<Set<Fused>> {
  const x = tf.randomNormal<tf.Rank.R2>([3, 16], 0, 1, "float32", 1);
  const w = tf.randomNormal<tf.Rank.R2>([16, 32], 0, 1, "float32", 2),
    b = tf.randomNormal<tf.Rank.R1>([32], 0, 1, "float32", 3);
  const gain = tf.randomNormal<tf.Rank.R1>([16], 1, 1, "float32", 4),
    bias = tf.randomNormal<tf.Rank.R1>([16], 0, 1, "float32", 5);
  const linear = { name: "probe", activation: "gelu_new", dtype: "float32" } as const;
  const trials: Record<Fused, [fused: (x: tf.Tensor2D) => tf.Tensor, plain: (x: tf.Tensor2D) => tf.Tensor]> = {
    layerNorm: [(x) => fusedLayerNorm(backend, x, gain, bias, 1e-5), (x) => plainOps.layerNorm(x, gain, bias, 1e-5)],
    linear: [
      (x) => fusedLinear(backend, x, w, b, { ...linear, packed: true }),
      (x) => plainOps.linear(w, b, linear).apply(x),
    ],
  };
  const working = new Set<Fused>();
  for (const kernel of FUSED) if (await agrees(backend, x, ...trials[kernel])) working.add(kernel);
  tf.dispose([x, w, b, gain, bias]);
  return working;
}

async function agrees(
  backend: TensorflowBackend,
  x: tf.Tensor2D,
  fused: (x: tf.Tensor2D) => tf.Tensor,
  plain: (x: tf.Tensor2D) => tf.Tensor,
): Promise<boolean> {
  try {
    const captured = backend.capture([x], ([x]) => [fused(x as tf.Tensor2D)]);
    const [y] = await captured.run([x]);
    captured.dispose();
    const worst = tf.tidy(() => tf.max(tf.abs(tf.sub(y, plain(x)))).dataSync()[0]);
    y.dispose();
    return worst < 1e-3; // false for NaN
  } catch {
    return false;
  }
}
