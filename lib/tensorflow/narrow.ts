/**
 * Linear layers with narrow weights: int8 reads a quarter of the bytes that float32 does and multiplies four times as many
 * numbers at once, bfloat16 half and twice.
 *
 * int8 scales weights by output channel and activations by row, each to its largest magnitude, so that a row's answer never
 * depends on its companions (as LLM.int8() does without its outliers, Dettmers et al. 2022, section 2).
 */

import * as tf from "@tensorflow/tfjs";
import { type Activation, geluNew, type Linear } from "../ops.ts";
import { attr, DataType } from "./attributes.ts";
import type { TensorflowBackend } from "./backend.ts";
import { joinColumns, type Shard } from "./shards.ts";
import type { TensorMetadata } from "./tensors.ts";

const { float, qint8, bfloat16 } = DataType;

/** Shards of float32 weights -> a layer with int8 weights. Takes over the biases; the weights stay the caller's. */
export function int8Linear(backend: TensorflowBackend, shards: readonly Shard[], activation: Activation): Linear {
  const parts = shards.map(({ name, weight, bias }) => ({
    name,
    bias,
    weight: tidied(() => {
      const limit = tf.maximum(tf.max(tf.abs(weight), 0), 1e-12); // [m]
      return quantize(backend, weight, tf.neg(limit), limit, [attr.int("axis", 1)]);
    }),
    noBias: tf.fill<tf.Rank.R1>([weight.shape[1]], 0),
  }));
  return {
    apply: (x) =>
      tf.tidy(() => {
        const largest = tf.max(tf.abs(x), -1, true); // [N, 1]
        const rows = quantize(backend, divideOrZero(backend, x, largest), tf.scalar(-1), tf.scalar(1));
        const products = parts.map(({ name, weight, bias, noBias }) => {
          const product = quantizedProduct(backend, rows, weight, noBias, name);
          const scaled = tf.mul(product, largest) as tf.Tensor2D;
          const y = bias ? tf.add<tf.Tensor2D>(scaled, bias) : scaled;
          return activation === "gelu_new" ? geluNew(y) : y;
        });
        backend.free(rows);
        return joinColumns(backend, products);
      }),
    dispose: () => {
      for (const { weight, bias, noBias } of parts) {
        backend.free(weight);
        tf.dispose(bias ? [noBias, bias] : noBias);
      }
    },
  };
}

/** Shards of float32 weights -> a layer with bfloat16 weights, sums in float32. All of them stay the caller's. */
export function bfloat16Linear(backend: TensorflowBackend, shards: readonly Shard[], activation: Activation): Linear {
  const parts = shards.map(({ name, weight, bias }) => ({
    name,
    narrow: tidied(() => [weight, bias ?? tf.fill([weight.shape[1]], 0)].map((x) => cast(backend, x, float, bfloat16))),
  }));
  return {
    apply: (x) => {
      const input = cast(backend, x, float, bfloat16);
      const products = parts.map(({ name, narrow }) => {
        const [y] = backend.executeRaw("_MklNativeFusedMatMul", [
          attr.type("T", bfloat16),
          attr.bool("transpose_a", false),
          attr.bool("transpose_b", false),
          attr.int("num_args", 1),
          attr.string("fused_ops", activation === "gelu_new" ? ["BiasAdd", "GeluApproximate"] : ["BiasAdd"]),
          attr.bool("is_filter_const", backend.binding.isCapturing),
          attr.string("_kernel", "MklNameChangeOp"),
          attr.string("_weight", name),
        ], [input, ...narrow]);
        const wide = backend.wrap(cast(backend, y, bfloat16, float)) as tf.Tensor2D;
        backend.free([y]);
        return wide;
      });
      backend.free([input]);
      return joinColumns(backend, products);
    },
    dispose: () => backend.free(parts.flatMap(({ narrow }) => narrow)),
  };
}
/** `tf.tidy` for work that makes raw tensors, which it does not know. */
function tidied<T>(work: () => T): T {
  let result: T;
  tf.tidy(() => void (result = work()));
  return result!;
}

/** a [N, M], b [N, 1] -> a / b, and 0 where b is. */
function divideOrZero(backend: TensorflowBackend, a: tf.Tensor, b: tf.Tensor): tf.Tensor {
  return backend.execute("DivNoNan", [attr.type("T", float)], [a, b])[0];
}

/** x in [low, high] -> int8 numbers and the range that they stand for: [values, low, high]. */
function quantize(
  backend: TensorflowBackend,
  x: tf.Tensor,
  low: tf.Tensor,
  high: tf.Tensor,
  more: ReturnType<typeof attr.int>[] = [],
): TensorMetadata[] {
  const attributes = [
    attr.type("T", qint8),
    attr.string("mode", "SCALED"),
    attr.string("round_mode", "HALF_TO_EVEN"),
    attr.bool("narrow_range", true), // -127 to 127: the same steps on both sides of zero
    attr.float("ensure_minimum_range", 0),
    ...more,
  ];
  return backend.executeRaw("QuantizeV2", attributes, [x, low, high], 3);
}

/** [N, K] int8, [K, M] int8, bias [M] float32 -> [N, M] float32. */
function quantizedProduct(
  backend: TensorflowBackend,
  [x, xLow, xHigh]: TensorMetadata[],
  [weight, low, high]: TensorMetadata[],
  bias: tf.Tensor1D,
  kernel: string,
): tf.Tensor2D {
  const [y] = backend.executeRaw("_QuantizedMatMul", [
    attr.type("Tdevice_inputs", [qint8, qint8, float]),
    attr.type("Thost_inputs", [float, float, float, float]),
    attr.type("Tdevice_outputs", [float]),
    attr.type("Thost_outputs", []),
    attr.type("T1", qint8),
    attr.type("T2", qint8),
    attr.type("Tbias", float),
    attr.type("U", float),
    attr.type("Tout", float),
    attr.bool("transpose_a", false),
    attr.bool("transpose_b", false),
    attr.bool("is_weight_const", backend.binding.isCapturing),
    attr.bool("is_bias_const", backend.binding.isCapturing),
    attr.string("fused_ops", ["BiasAdd", "Dequantize"]),
    attr.string("input_quant_mode", "SCALED"),
    attr.string("output_quant_mode", "SCALED"),
    attr.string("_weight", kernel),
  ], [x, weight, bias, xLow, xHigh, low, high]);
  return backend.wrap(y) as tf.Tensor2D;
}

/** A copy of `x` in another type. */
export function cast(
  backend: TensorflowBackend,
  x: tf.Tensor | TensorMetadata,
  from: number,
  to: number,
): TensorMetadata {
  const attributes = [attr.type("SrcT", from), attr.type("DstT", to), attr.bool("Truncate", false)];
  return backend.executeRaw("Cast", attributes, [x])[0];
}
