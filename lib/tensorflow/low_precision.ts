/**
 * Linear layers with low-precision weights: int8 reads a quarter of the bytes that float32 does and multiplies four times as many
 * numbers at once, bfloat16 half and twice.
 *
 * int8 scales weights by output channel and activations by row, each to its largest magnitude, so that a row's answer never
 * depends on its companions (as LLM.int8() does without its outliers, Dettmers et al. 2022, section 2).
 */

import * as tf from "@tensorflow/tfjs";
import type { Int8Weight } from "../backend/int8.ts";
import type { Activation, DividedLinear } from "../backend/ops.ts";
import { geluNew } from "../backend/plain.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import { keepsPacked } from "./packing.ts";
import { type ColumnPart, partName } from "./column_parts.ts";
import type { TensorMetadata } from "./capi/tensors.ts";

const { float, int32, uint8, qint8, bfloat16 } = DataType;

/** A part whose weight is int8 already. */
export interface Int8Part extends Pick<ColumnPart, "name" | "bias"> {
  /** The numbers, [K, m], and the range of each column that −127 and 127 stand for, twice [m]. */
  weight: TensorMetadata[];
}

/** What else there is to know of parts. */
export interface ColumnPartOptions {
  /** Their weights are [m, K], not [K, m]. */
  transposed?: boolean;
  /** How many numbers the whole model has. Default: few. */
  modelSize?: number;
}

/** Each column to its largest magnitude. Takes over the bias; the weight stays the caller's. */
export function quantizedPart(
  backend: TensorflowBackend,
  { name, weight, bias }: ColumnPart,
  { transposed = false }: ColumnPartOptions = {},
): Int8Part {
  const columns = transposed ? 0 : 1;
  const [values, ...range] = tidied(() => {
    const [high, low] = [tf.max(weight, 1 - columns), tf.min(weight, 1 - columns)]; // each [m]
    const limit = tf.maximum(tf.maximum(high, tf.neg(low)), 1e-12);
    return quantize(backend, weight, tf.neg(limit), limit, [attr.int("axis", columns)]);
  });
  return { name, bias, weight: [transposed ? transpose(backend, values) : values, ...range] };
}

/** A weight that is int8 already, as it is. Takes over the bias. */
export function int8Part(
  backend: TensorflowBackend,
  name: string,
  weight: Int8Weight,
  bias: tf.Tensor1D | null,
): Int8Part {
  return { name: partName(name), bias, weight: rawInt8(backend, weight) };
}

/** Parts -> a layer with int8 weights. Takes them over. */
export function int8Linear(
  backend: TensorflowBackend,
  parts: readonly Int8Part[],
  activation: Activation,
  { modelSize = 0 }: ColumnPartOptions = {},
): DividedLinear {
  const prepared = parts.map((part) => ({ ...part, noBias: tf.fill<tf.Rank.R1>([part.weight[1].shape[0]], 0) }));
  return {
    apply: (x) =>
      tf.tidy(() => {
        const largest = tf.max(tf.abs(x), -1, true); // [N, 1]
        const rows = quantize(backend, divideOrZero(backend, x, largest), tf.scalar(-1), tf.scalar(1));
        const products = prepared.map(({ name, weight, bias, noBias }) => {
          const packed = keepsPacked(backend, modelSize);
          const product = quantizedProduct(backend, rows, weight, noBias, { name, packed });
          const scaled = tf.mul(product, largest) as tf.Tensor2D;
          const y = bias ? tf.add<tf.Tensor2D>(scaled, bias) : scaled;
          return activation === "gelu_new" ? geluNew(y) : y;
        });
        backend.free(rows);
        return products;
      }),
    dispose: () => {
      for (const { weight, bias, noBias } of prepared) {
        backend.free(weight);
        tf.dispose(bias ? [noBias, bias] : noBias);
      }
    },
  };
}

/** Parts of float32 weights -> a layer with bfloat16 weights, sums in float32. All of them stay the caller's. */
export function bfloat16Linear(
  backend: TensorflowBackend,
  parts: readonly ColumnPart[],
  activation: Activation,
  { transposed = false, modelSize = 0 }: ColumnPartOptions = {},
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
          attr.bool("is_filter_const", keepsPacked(backend, 2 * modelSize)),
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

/** An int8 weight in TensorFlow's memory: [values [K, m], low [m], high [m]]. */
function rawInt8(backend: TensorflowBackend, { values, shape, axis, scale }: Int8Weight): TensorMetadata[] {
  const high = scale.map((scale) => 127 * scale), vector = [high.length];
  const raw = backend.createRaw([...shape], qint8, values);
  return [
    axis === 0 ? transpose(backend, raw) : raw,
    backend.createRaw(vector, float, high.map((limit) => -limit)),
    backend.createRaw(vector, float, high),
  ];
}

/** [m, K] -> [K, m]. Takes the tensor over. int8 goes as plain bytes: TensorFlow does not transpose its quantized types. */
function transpose(backend: TensorflowBackend, x: TensorMetadata): TensorMetadata {
  const plain = x.dtype === qint8 ? uint8 : x.dtype;
  const bits = bitcast(backend, x, plain), axes = backend.createRaw([2], int32, new Int32Array([1, 0]));
  const [columns] = backend.executeRaw("Transpose", [attr.type("T", plain), attr.type("Tperm", int32)], [bits, axes]);
  const y = bitcast(backend, columns, x.dtype);
  backend.free([x, bits, axes, columns]);
  return y;
}

/** The same bytes as another type. */
function bitcast(backend: TensorflowBackend, x: TensorMetadata, type: number): TensorMetadata {
  return backend.executeRaw("Bitcast", [attr.type("T", x.dtype), attr.type("type", type)], [x])[0];
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
  { name, packed }: { name: string; packed: boolean },
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
    attr.bool("is_weight_const", packed),
    attr.bool("is_bias_const", backend.binding.isCapturing),
    attr.string("fused_ops", ["BiasAdd", "Dequantize"]),
    attr.string("input_quant_mode", "SCALED"),
    attr.string("output_quant_mode", "SCALED"),
    attr.string("_weight", name),
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
