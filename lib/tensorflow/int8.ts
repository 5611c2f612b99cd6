/**
 * Linear layers with int8 weights: they read a quarter of the bytes that float32 does, and multiply four times as many numbers
 * at once.
 *
 * Weights are scaled by output channel. Activations become unsigned numbers between two that were measured beforehand, or each
 * row is scaled by its own largest magnitude as it comes (static and dynamic quantization; both, and what they cost, in Dettmers
 * et al. 2022, section 2, and Xiao et al. 2023, section 2). Either way a row's answer never depends on its companions.
 */

import * as tf from "@tensorflow/tfjs";
import { type ActivationRange, type Int8Weight, withZero } from "../backend/int8.ts";
import type { Activation, DividedLinear } from "../backend/ops.ts";
import { geluNew } from "../backend/plain.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorMetadata } from "./capi/tensors.ts";
import { type ColumnPart, type ColumnPartOptions, partName } from "./column_parts.ts";
import { keepsPacked } from "./packing.ts";
import { tidied, transpose } from "./raw.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

const { float, qint8, quint8 } = DataType;

/** A part whose weight is int8 already. */
export interface Int8Part extends Pick<ColumnPart, "name" | "bias"> {
  /** The numbers, [m, K]: a product of one row reads each column from end to end. The range that −127 and 127 stand for, twice [m]. */
  weight: TensorMetadata[];
}

/** A part with what its layer adds to its products. */
interface PreparedPart extends Int8Part {
  /** Zeros, [m]. */
  noBias: tf.Tensor1D;
  /** With constant ranges: see {@link shiftedBias}. */
  shiftedBias?: tf.Tensor1D;
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
  return { name, bias, weight: [transposed ? values : transpose(backend, values), ...range] };
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
  /** What its inputs are taken to range over. Default: up to each row's own largest magnitude. */
  inputRange?: ActivationRange;
}

/** A layer of parts with int8 weights. */
export class Int8Linear implements DividedLinear {
  /** See {@link Int8LinearOptions.inputRange}. */
  readonly inputRange: ActivationRange | undefined;
  readonly #modelSize: number | undefined;
  readonly #parts: readonly PreparedPart[];

  /** Takes the parts over. */
  constructor(
    private readonly backend: TensorflowBackend,
    parts: readonly Int8Part[],
    private readonly activation: Activation,
    { modelSize, inputRange }: Int8LinearOptions = {},
  ) {
    this.inputRange = inputRange && withZero(inputRange);
    this.#modelSize = modelSize;
    this.#parts = parts.map((part) => {
      const noBias = tf.fill<tf.Rank.R1>([part.weight[1].shape[0]], 0), prepared = { ...part, noBias };
      return this.inputRange
        ? { ...prepared, shiftedBias: shiftedBias(backend, prepared, this.inputRange[0]) }
        : prepared;
    });
  }

  /** [N, K] -> [N, m] of each part. */
  apply(x: tf.Tensor2D): tf.Tensor2D[] {
    if (this.inputRange === undefined) return this.#applyByRow(x);
    const input = this.quantizeInput(x);
    const products = this.applyInt8(input);
    this.backend.free([input]);
    return products;
  }

  /** [N, K] -> the layer's input as eight-bit numbers in its range. The caller frees it. */
  quantizeInput(x: tf.Tensor2D): TensorMetadata {
    return quantizeUnsigned(this.backend, x, this.inputRange!);
  }

  /** The input as eight-bit numbers -> [N, m] of each part. */
  applyInt8(input: TensorMetadata): tf.Tensor2D[] {
    return this.#parts.map((part) => this.backend.wrap(this.#product(input, part)) as tf.Tensor2D);
  }

  /** The input as eight-bit numbers -> the one part's output likewise, in the range of who reads it. The caller frees it. */
  applyInt8ToInt8(input: TensorMetadata, outputRange: ActivationRange): TensorMetadata {
    return this.#product(input, this.#parts[0], outputRange);
  }

  /** Bias and activation in the same kernel; with `outputRange` also the rounding to eight bits. */
  #product(
    input: TensorMetadata,
    { name, weight, shiftedBias }: PreparedPart,
    outputRange?: ActivationRange,
  ): TensorMetadata {
    const packed = keepsPacked(this.backend, "int8", input.shape[0], this.#modelSize),
      gelu = this.activation === "gelu_new";
    const [low, high] = this.inputRange!;
    return unsignedProduct(this.backend, input, high - low, weight, shiftedBias!, { name, packed, gelu, outputRange });
  }

  #applyByRow(x: tf.Tensor2D): tf.Tensor2D[] {
    const { backend } = this, packed = keepsPacked(backend, "int8", x.shape[0], this.#modelSize);
    return tf.tidy(() => {
      const largest = tf.max(tf.abs(x), -1, true); // [N, 1]
      const rows = quantize(backend, divideOrZero(backend, x, largest), tf.scalar(-1), tf.scalar(1));
      const products = this.#parts.map(({ name, weight, bias, noBias }) => {
        const product = quantizedProduct(backend, rows, weight, noBias, { name, packed });
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
    for (const { weight, bias, noBias, shiftedBias } of this.#parts) {
      this.backend.free(weight);
      tf.dispose([noBias, bias ?? [], shiftedBias ?? []]);
    }
  }
}

/** [N, K] -> [N, M] by two layers of one part with constant ranges: what goes from the first to the second stays eight bits. */
export function applyInt8Chain(
  backend: TensorflowBackend,
  first: Int8Linear,
  second: Int8Linear,
  x: tf.Tensor2D,
): tf.Tensor2D {
  const input = first.quantizeInput(x), between = first.applyInt8ToInt8(input, second.inputRange!);
  const [y] = second.applyInt8(between);
  backend.free([input, between]);
  return y;
}

/**
 * Unsigned inputs stand for x − low. So a product lacks low · Σ weight in each column, which goes to the bias: the products of a row
 * of ones.
 */
function shiftedBias(
  backend: TensorflowBackend,
  { name, weight, bias, noBias }: PreparedPart,
  low: number,
): tf.Tensor1D {
  return tf.tidy(() => {
    const ones = quantizeUnsigned(backend, tf.ones([1, weight[0].shape[1]]), [0, 1]);
    const sums = backend.wrap(
      unsignedProduct(backend, ones, 1, weight, noBias, { name, packed: false }),
    ) as tf.Tensor2D;
    backend.free([ones]);
    return tf.add<tf.Tensor1D>(tf.mul(tf.reshape(sums, [-1]), low), bias ?? noBias);
  });
}

/** An int8 weight in TensorFlow's memory: [values [m, K], low [m], high [m]]. */
function rawInt8(backend: TensorflowBackend, { values, shape, axis, scale }: Int8Weight): TensorMetadata[] {
  const high = scale.map((scale) => 127 * scale), vector = [high.length];
  const raw = backend.createRaw([...shape], qint8, values);
  return [
    axis === 0 ? raw : transpose(backend, raw),
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
): [values: TensorMetadata, low: TensorMetadata, high: TensorMetadata] {
  const attributes = [
    attr.type("T", qint8),
    attr.string("mode", "SCALED"),
    attr.string("round_mode", "HALF_TO_EVEN"),
    attr.bool("narrow_range", true), // -127 to 127: the same steps on both sides of zero
    attr.float("ensure_minimum_range", 0),
    ...more,
  ];
  const [values, ...range] = backend.executeRaw("QuantizeV2", attributes, [x, low, high], 3);
  return [values, range[0], range[1]];
}

/**
 * x -> uint8 numbers, where 0 and 255 stand for low and high. In mode MIN_FIRST they would be the same, but from oneDNN, whose
 * calls take 35 µs longer.
 */
function quantizeUnsigned(backend: TensorflowBackend, x: tf.Tensor, range: ActivationRange): TensorMetadata {
  const attributes = [
    attr.type("T", quint8),
    attr.string("mode", "MIN_COMBINED"),
    attr.float("ensure_minimum_range", 0),
  ];
  const [values, ...limits] = tidied(() =>
    backend.executeRaw("QuantizeV2", attributes, [x, ...range.map((limit) => tf.scalar(limit))], 3)
  );
  backend.free(limits);
  return values;
}

/** What {@link quantizedProduct} is to do besides. */
interface ProductOptions {
  name: string;
  /** Keep a copy of the weight in the order that the processor likes best. */
  packed: boolean;
  /** GELU follows. */
  gelu?: boolean;
  /** Round to uint8 numbers in this range. Default: float32. */
  outputRange?: ActivationRange;
}

/** [N, K] uint8 numbers, 255 being `size`; [K, M] int8, bias [M] float32 -> [N, M], float32 or uint8. */
function unsignedProduct(
  backend: TensorflowBackend,
  x: TensorMetadata,
  size: number,
  weight: TensorMetadata[],
  bias: tf.Tensor1D,
  options: ProductOptions,
): TensorMetadata {
  return tidied(() => quantizedProduct(backend, [x, tf.scalar(0), tf.scalar(size)], weight, bias, options));
}

/** [N, K] int8 or uint8, [K, M] int8, bias [M] float32 -> [N, M], float32 or uint8. */
function quantizedProduct(
  backend: TensorflowBackend,
  [x, ...range]: [x: TensorMetadata, low: TensorMetadata | tf.Scalar, high: TensorMetadata | tf.Scalar],
  [weight, low, high]: TensorMetadata[],
  bias: tf.Tensor1D,
  { name, packed, gelu = false, outputRange }: ProductOptions,
): TensorMetadata {
  const rounds = outputRange !== undefined, output = rounds ? quint8 : float;
  const limits = (outputRange ?? []).map((limit) => tf.scalar(limit));
  const [y, ...rest] = backend.executeRaw(
    "_QuantizedMatMul",
    [
      attr.type("Tdevice_inputs", [x.dtype, qint8, float]),
      attr.type("Thost_inputs", [float, float, float, float, ...limits.map(() => float)]),
      attr.type("Tdevice_outputs", [output]),
      attr.type("Thost_outputs", limits.map(() => float)),
      attr.type("T1", x.dtype),
      attr.type("T2", qint8),
      attr.type("Tbias", float),
      attr.type("U", float),
      attr.type("Tout", output),
      attr.bool("transpose_a", false),
      attr.bool("transpose_b", true),
      attr.bool("is_weight_const", packed),
      attr.bool("is_bias_const", backend.binding.isCapturing),
      attr.string("fused_ops", ["BiasAdd", ...gelu ? ["GeluApproximate"] : [], rounds ? "Requantize" : "Dequantize"]),
      attr.string("input_quant_mode", "SCALED"),
      attr.string("output_quant_mode", "MIN_FIRST"),
      attr.string("_weight", name),
    ],
    [x, weight, bias, ...range, low, high, ...limits],
    rounds ? 3 : 1,
  );
  tf.dispose(limits);
  backend.free(rest);
  return y;
}
