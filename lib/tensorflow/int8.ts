/**
 * Linear layers with int8 weights: they read a quarter of the bytes that float32 does, and multiply four times as many numbers
 * at once.
 *
 * Weights are scaled by output channel. Activations are scaled by one number that was measured beforehand, or each row by its
 * own largest magnitude as it comes (static and dynamic quantization; both, and what they cost, in Dettmers et al. 2022,
 * section 2, and Xiao et al. 2023, section 2). Either way a row's answer never depends on its companions.
 */

import * as tf from "@tensorflow/tfjs";
import type { Int8Weight } from "../backend/int8.ts";
import type { Activation, DividedLinear } from "../backend/ops.ts";
import { geluNew } from "../backend/plain.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorMetadata } from "./capi/tensors.ts";
import { type ColumnPart, type ColumnPartOptions, partName } from "./column_parts.ts";
import { keepsPacked } from "./packing.ts";
import { tidied, transpose } from "./raw.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

const { float, qint8 } = DataType;

/** A part whose weight is int8 already. */
export interface Int8Part extends Pick<ColumnPart, "name" | "bias"> {
  /** The numbers, [K, m], and the range of each column that −127 and 127 stand for, twice [m]. */
  weight: TensorMetadata[];
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

/** How an int8 layer is to compute. */
export interface Int8LinearOptions extends Pick<ColumnPartOptions, "modelSize"> {
  /** The largest magnitude that its inputs are taken to have; larger ones are cut off. Default: each row's own largest. */
  inputRange?: number;
}

/** A layer of parts with int8 weights. */
export class Int8Linear implements DividedLinear {
  /** See {@link Int8LinearOptions.inputRange}. */
  readonly inputRange: number | undefined;
  readonly #modelSize: number;
  readonly #parts: readonly (Int8Part & { noBias: tf.Tensor1D })[];

  /** Takes the parts over. */
  constructor(
    private readonly backend: TensorflowBackend,
    parts: readonly Int8Part[],
    private readonly activation: Activation,
    { modelSize = 0, inputRange }: Int8LinearOptions = {},
  ) {
    this.inputRange = inputRange;
    this.#modelSize = modelSize;
    this.#parts = parts.map((part) => ({ ...part, noBias: tf.fill<tf.Rank.R1>([part.weight[1].shape[0]], 0) }));
  }

  /** [N, K] -> [N, m] of each part. */
  apply(x: tf.Tensor2D): tf.Tensor2D[] {
    if (this.inputRange === undefined) return this.#applyByRow(x);
    const input = this.quantizeInput(x);
    const products = this.applyInt8(input);
    this.backend.free(input);
    return products;
  }

  /** [N, K] -> the layer's input as int8, by its constant range. The caller frees it. */
  quantizeInput(x: tf.Tensor2D): TensorMetadata[] {
    const limit = this.inputRange!;
    return tidied(() => quantize(this.backend, x, tf.scalar(-limit), tf.scalar(limit)));
  }

  /** The input as int8 -> [N, m] of each part. */
  applyInt8(input: TensorMetadata[]): tf.Tensor2D[] {
    return this.#parts.map((part) => this.backend.wrap(this.#product(input, part)[0]) as tf.Tensor2D);
  }

  /** The input as int8 -> the one part's output as int8, by the range of who reads it. The caller frees it. */
  applyInt8ToInt8(input: TensorMetadata[], outputRange: number): TensorMetadata[] {
    return this.#product(input, this.#parts[0], outputRange);
  }

  /** Bias and activation in the same kernel; with `outputRange` also the rounding to int8. */
  #product(
    input: TensorMetadata[],
    { name, weight, bias, noBias }: Int8Part & { noBias: tf.Tensor1D },
    outputRange?: number,
  ): TensorMetadata[] {
    const packed = keepsPacked(this.backend, this.#modelSize), gelu = this.activation === "gelu_new";
    return quantizedProduct(this.backend, input, weight, bias ?? noBias, { name, packed, gelu, outputRange });
  }

  #applyByRow(x: tf.Tensor2D): tf.Tensor2D[] {
    const { backend } = this, packed = keepsPacked(backend, this.#modelSize);
    return tf.tidy(() => {
      const largest = tf.max(tf.abs(x), -1, true); // [N, 1]
      const rows = quantize(backend, divideOrZero(backend, x, largest), tf.scalar(-1), tf.scalar(1));
      const products = this.#parts.map(({ name, weight, bias, noBias }) => {
        const [product] = quantizedProduct(backend, rows, weight, noBias, { name, packed });
        const scaled = tf.mul(backend.wrap(product), largest) as tf.Tensor2D;
        const y = bias ? tf.add<tf.Tensor2D>(scaled, bias) : scaled;
        return this.activation === "gelu_new" ? geluNew(y) : y;
      });
      backend.free(rows);
      return products;
    });
  }

  /** Frees the parts. */
  dispose(): void {
    for (const { weight, bias, noBias } of this.#parts) {
      this.backend.free(weight);
      tf.dispose(bias ? [noBias, bias] : noBias);
    }
  }
}

/** [N, K] -> [N, M] by two layers of one part with constant ranges: what goes from the first to the second stays int8. */
export function applyInt8Chain(
  backend: TensorflowBackend,
  first: Int8Linear,
  second: Int8Linear,
  x: tf.Tensor2D,
): tf.Tensor2D {
  const input = first.quantizeInput(x), between = first.applyInt8ToInt8(input, second.inputRange!);
  const [y] = second.applyInt8(between);
  backend.free([...input, ...between]);
  return y;
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

/** a [N, M], b [N, 1] -> a / b, and 0 where b is. */
function divideOrZero(backend: TensorflowBackend, a: tf.Tensor, b: tf.Tensor): tf.Tensor {
  return backend.execute("DivNoNan", [attr.type("T", float)], [a, b])[0];
}

/** x -> int8 numbers, where −127 and 127 stand for low and high, and that range: [values, low, high]. */
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

/** What {@link quantizedProduct} is to do besides. */
interface ProductOptions {
  name: string;
  /** Keep a copy of the weight in the order that the processor likes best. */
  packed: boolean;
  /** GELU follows. */
  gelu?: boolean;
  /** Round to int8, −127 and 127 being this range. Default: float32. */
  outputRange?: number;
}

/** [N, K] int8, [K, M] int8, bias [M] float32 -> [N, M], float32 or [values, low, high]. */
function quantizedProduct(
  backend: TensorflowBackend,
  [x, xLow, xHigh]: TensorMetadata[],
  [weight, low, high]: TensorMetadata[],
  bias: tf.Tensor1D,
  { name, packed, gelu = false, outputRange }: ProductOptions,
): TensorMetadata[] {
  const rounds = outputRange !== undefined, output = rounds ? qint8 : float;
  const limits = rounds ? [tf.scalar(-outputRange), tf.scalar(outputRange)] : [];
  const results = backend.executeRaw(
    "_QuantizedMatMul",
    [
      attr.type("Tdevice_inputs", [qint8, qint8, float]),
      attr.type("Thost_inputs", [float, float, float, float, ...limits.map(() => float)]),
      attr.type("Tdevice_outputs", [output]),
      attr.type("Thost_outputs", limits.map(() => float)),
      attr.type("T1", qint8),
      attr.type("T2", qint8),
      attr.type("Tbias", float),
      attr.type("U", float),
      attr.type("Tout", output),
      attr.bool("transpose_a", false),
      attr.bool("transpose_b", false),
      attr.bool("is_weight_const", packed),
      attr.bool("is_bias_const", backend.binding.isCapturing),
      attr.string("fused_ops", ["BiasAdd", ...gelu ? ["GeluApproximate"] : [], rounds ? "Requantize" : "Dequantize"]),
      attr.string("input_quant_mode", "SCALED"),
      attr.string("output_quant_mode", "SCALED"),
      attr.string("_weight", name),
    ],
    [x, weight, bias, xLow, xHigh, low, high, ...limits],
    rounds ? 3 : 1,
  );
  tf.dispose(limits);
  return results;
}
