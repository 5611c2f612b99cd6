/**
 * Which kernels work here. Fused and low-precision ones are not part of TensorFlow's public interface: a build may lack one, or
 * have it with another meaning. So each is tried on a small input, inside a captured function, against the plain operations.
 */

import * as tf from "@tensorflow/tfjs";
import { onBackend } from "../backend/current.ts";
import { geluNew, plainOps } from "../backend/plain.ts";
import type { DividedLinear } from "../backend/ops.ts";
import { TENSORFLOW, type TensorflowBackend } from "./tfjs/backend.ts";
import type { RunOptions } from "./capi/binding.ts";
import { fusedLayerNorm, fusedLinear, productsOfRows } from "./fused.ts";
import { bfloat16Linear } from "./bfloat16.ts";
import { applyInt8Chain, Int8Linear, quantizedPart } from "./int8.ts";
import type { ColumnPart } from "./column_parts.ts";

/** The kernels that may be there. */
export const PRIVATE_KERNELS = ["layerNorm", "linear", "attention", "bfloat16", "int8", "staticInt8"] as const;

/** One of {@link PRIVATE_KERNELS}. */
export type PrivateKernel = typeof PRIVATE_KERNELS[number];

/** Tries each kernel. What is missing or wrong is not in the result. */
export async function workingKernels(backend: TensorflowBackend): Promise<Set<PrivateKernel>> {
  const random = <R extends tf.Rank>(seed: number, ...shape: number[]) =>
    tf.randomNormal<R>(shape as tf.ShapeMap[R], 0, 1, "float32", seed);
  const x = random<tf.Rank.R2>(1, 3, 16), gain = random<tf.Rank.R1>(2, 16), shift = random<tf.Rank.R1>(3, 16);
  const weight = random<tf.Rank.R2>(4, 16, 32), bias = random<tf.Rank.R1>(5, 32);
  const activation = "gelu_new";
  const layerNorm = tf.tidy(() => plainOps.layerNorm(x, gain, shift, 1e-5));
  const linear = tf.tidy(() => plainOps.linear(weight, bias, { name: "probe", activation, dtype: "float32" }).apply(x));
  const keys = random<tf.Rank.R4>(6, 3, 1, 5, 16),
    query = (x: tf.Tensor2D) => tf.reshape(x, [3, 1, 1, 16]) as tf.Tensor4D;
  const flat = (scores: tf.Tensor) => tf.reshape(scores, [3, 5]) as tf.Tensor2D;
  const scores = tf.tidy(() => flat(tf.matMul(query(x), keys, false, true)));
  const part = (name: string): ColumnPart => ({ name: `probe.${name}`, weight, bias });
  const back = tf.tidy(() => tf.mul(random<tf.Rank.R2>(7, 32, 16), 0.1)) as tf.Tensor2D; // from the hidden units
  const chain = tf.tidy(() => tf.matMul(linear, back)) as tf.Tensor2D;
  const nothing = () => {};
  const trials: Record<PrivateKernel, [make: () => DividedLinear, expected: tf.Tensor2D, tolerance: number]> = {
    layerNorm: [
      () => ({ apply: (x) => [fusedLayerNorm(backend, x, gain, shift, 1e-5)], dispose: nothing }),
      layerNorm,
      1e-4,
    ],
    linear: [
      () => ({
        apply: (x) => [fusedLinear(backend, x, part("float32"), { activation, packed: true })],
        dispose: nothing,
      }),
      linear,
      1e-3,
    ],
    attention: [
      () => ({ apply: (x) => [flat(productsOfRows(backend, query(x), keys, true))], dispose: nothing }),
      scores,
      1e-4,
    ],
    bfloat16: [() => bfloat16Linear(backend, [part("bfloat16")], activation), linear, 0.2],
    int8: [
      () => new Int8Linear(backend, [quantizedPart(backend, { ...part("int8"), bias: bias.clone() })], activation),
      linear,
      0.3,
    ],
    staticInt8: [
      () => int8Chain(backend, part("first"), { name: "probe.second", weight: back, bias: null }),
      chain,
      0.2,
    ],
  };
  const working = new Set<PrivateKernel>();
  for (const kernel of PRIVATE_KERNELS) if (await agrees(backend, x, ...trials[kernel])) working.add(kernel);
  tf.dispose([x, gain, shift, weight, bias, keys, scores, layerNorm, linear, back, chain]);
  return working;
}

/** Two int8 layers with constant ranges, of weights that stay the caller's, with a GELU in between. */
function int8Chain(backend: TensorflowBackend, first: ColumnPart, second: ColumnPart): DividedLinear {
  const quantized = (part: ColumnPart) => [quantizedPart(backend, { ...part, bias: part.bias && part.bias.clone() })];
  const a = new Int8Linear(backend, quantized(first), "gelu_new", { inputRange: [-4, 4] });
  const b = new Int8Linear(backend, quantized(second), "none", { inputRange: [-0.2, 16] });
  return {
    apply: (x) => [applyInt8Chain(backend, a, b, x)],
    dispose: () => [a, b].forEach((layer) => layer.dispose()),
  };
}

/** Whether XLA compiles what is captured: it needs NVIDIA's libdevice and ptxas, which not every installation has. */
export async function compiles(backend: TensorflowBackend): Promise<boolean> {
  const x = tf.randomNormal<tf.Rank.R2>([3, 16], 0, 1, "float32", 1);
  const expected = tf.tidy(() => geluNew(x));
  const works = await agrees(backend, x, () => ({ apply: (x) => [geluNew(x)], dispose() {} }), expected, 1e-3, {
    compiled: true,
  });
  tf.dispose([x, expected]);
  return works;
}

async function agrees(
  backend: TensorflowBackend,
  x: tf.Tensor2D,
  make: () => DividedLinear,
  expected: tf.Tensor2D,
  tolerance: number,
  options: RunOptions = {},
): Promise<boolean> {
  try {
    const layer = onBackend(TENSORFLOW, make); // others may have made theirs the current one meanwhile
    const captured = backend.capture([x], ([x]) => layer.apply(x as tf.Tensor2D).slice(0, 1));
    const [y] = await captured.run([x], options);
    captured.dispose();
    layer.dispose();
    const difference = () => tf.max(tf.abs(tf.sub(y, expected))).dataSync()[0];
    const worst = onBackend(TENSORFLOW, () => tf.tidy(difference));
    y.dispose();
    return worst < tolerance; // false for NaN
  } catch {
    return false;
  }
}
