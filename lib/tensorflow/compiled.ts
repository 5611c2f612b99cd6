/**
 * GPT-2's operations for XLA, TensorFlow's compiler, which makes a few kernels of a whole captured step: on a GPU, starting
 * a kernel takes longer than most of a step's operations do.
 *
 * XLA compiles anew for each shape, and its programs own what they compute, so the cache comes out of a step as new
 * tensors. Outside captures the operations run one by one, and mean the same.
 */

import * as tf from "@tensorflow/tfjs";
import type { Activation, Linear, LinearOptions, Ops } from "../backend/ops.ts";
import { geluNew, plainOps } from "../backend/plain.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import { cast } from "./low_precision.ts";
import { tensorflowOps } from "./ops.ts";
import type { TensorMetadata } from "./capi/tensors.ts";

const { float, int32, bfloat16 } = DataType;

/** The operations on a TensorFlow backend whose captured steps XLA compiles. */
export function compiledOps(backend: TensorflowBackend): Ops {
  return {
    ...tensorflowOps(backend),
    writesInPlace: false,

    linear(weight, bias, options) {
      return linear(backend, weight, bias, options);
    },

    head(wte, options) {
      const layer = linear(backend, wte, null, options);
      return { apply: (x) => [layer.apply(x)], dispose: layer.dispose };
    },

    unpackInputs(packed, cache) {
      const [last, all] = [-1, 0];
      const cut = (rows: Range, columns: Range) => slice(backend, packed, rows, columns);
      const padding = cut([all, last], [last, all]); //                                      [B, 1]
      const newSlots = tf.transpose(cut([last, all], [all, last])) as tf.Tensor2D; //        [T, 1]
      return {
        tokens: cut([all, last], [all, last]), //                                            [B, T]
        positions: tf.maximum(tf.sub(tf.transpose(newSlots), padding), tf.scalar(0, "int32")) as tf.Tensor2D, // [B, T]
        newSlots,
        cache: {
          padding: tf.expandDims(tf.expandDims(padding, 2), 3) as tf.Tensor4D,
          slots: slotsOf(backend, cache),
          rowStarts: [tf.zeros([1, 1, 1], "int32")], // which nobody asks for here
        },
      };
    },

    emptyCaches(shape, count) {
      const zeros = tf.fill<tf.Rank.R4>(shape, 0); // a kernel for each would take longer than a step
      return [zeros, ...Array.from({ length: count - 1 }, () => zeros.clone())];
    },

    locateSlots(rowStarts, slots) {
      return plainOps.locateSlots(rowStarts, slots);
    },

    writeSlots(cache, update, slots) {
      if (!backend.binding.isCapturing) return plainOps.writeSlots(cache, update, slots);
      const first = tf.reshape(tf.slice(slots, [0, 0], [1, 1]), [1]);
      const start = tf.concat([tf.tensor1d([0, 0], "int32"), first, tf.tensor1d([0], "int32")]);
      const types = [attr.type("T", float), attr.type("Tindices", int32)];
      return backend.execute("XlaDynamicUpdateSlice", types, [cache, update, start])[0] as tf.Tensor4D;
    },
  };
}

/** weight [K, M] and its bias [M], which are taken over; without a bias [M, K], which stays the caller's. */
function linear(
  backend: TensorflowBackend,
  weight: tf.Tensor2D,
  bias: tf.Tensor1D | null,
  { activation = "none", dtype }: LinearOptions,
): Linear {
  const narrow = dtype === "bfloat16" ? cast(backend, weight, float, bfloat16) : null;
  if (narrow && bias) weight.dispose();
  return {
    apply: (x) => {
      const transposed = !bias;
      const y = narrow ? narrowProduct(backend, x, narrow, transposed) : tf.matMul(x, weight, false, transposed);
      return finish(y as tf.Tensor2D, bias, activation);
    },
    dispose: () => {
      if (narrow) backend.free([narrow]);
      tf.dispose(bias ? narrow ? bias : [weight, bias] : []);
    },
  };
}

/** x [N, K] float32, weight [K, M] or, transposed, [M, K] bfloat16 -> [N, M] float32. */
function narrowProduct(
  backend: TensorflowBackend,
  x: tf.Tensor2D,
  weight: TensorMetadata,
  transposed: boolean,
): tf.Tensor2D {
  const input = cast(backend, x, float, bfloat16);
  const attributes = [
    attr.type("T", bfloat16),
    attr.bool("transpose_a", false),
    attr.bool("transpose_b", transposed),
  ];
  const [product] = backend.executeRaw("MatMul", attributes, [input, weight]);
  const wide = backend.wrap(cast(backend, product, bfloat16, float)) as tf.Tensor2D;
  backend.free([input, product]);
  return wide;
}

function finish(y: tf.Tensor2D, bias: tf.Tensor1D | null, activation: Activation): tf.Tensor2D {
  const sum = bias ? tf.add<tf.Tensor2D>(y, bias) : y;
  return activation === "gelu_new" ? geluNew(sum) : sum;
}

/** From an index, from the end if it is below 0, to before another; 0 means the first, or all to the end. */
type Range = readonly [begin: number, end: number];

/** Some rows and columns of an int tensor. tfjs's slice would count from the shape of the capture. */
function slice(backend: TensorflowBackend, x: tf.Tensor2D, ...ranges: [rows: Range, columns: Range]): tf.Tensor2D {
  const open = (i: 0 | 1) => ranges.reduce((mask, range, axis) => mask | (range[i] === 0 ? 1 << axis : 0), 0);
  const attributes = [
    attr.type("T", int32),
    attr.type("Index", int32),
    attr.int("begin_mask", open(0)),
    attr.int("end_mask", open(1)),
    attr.int("ellipsis_mask", 0),
    attr.int("new_axis_mask", 0),
    attr.int("shrink_axis_mask", 0),
  ];
  const ints = (...values: number[]) => tf.tensor1d(values, "int32");
  const [begin, end] = [0, 1].map((i) => ints(...ranges.map((range) => range[i])));
  return backend.execute("StridedSlice", attributes, [x, begin, end, ints(1, 1)])[0] as tf.Tensor2D;
}

/** [B, H, S, D/H] -> int [S]: 0, 1, 2, … */
function slotsOf(backend: TensorflowBackend, cache: tf.Tensor4D): tf.Tensor1D {
  const shape = backend.execute("Shape", [attr.type("T", float), attr.type("out_type", int32)], [cache])[0];
  const count = tf.reshape(tf.slice(shape, [2], [1]), []);
  const range = [tf.scalar(0, "int32"), count, tf.scalar(1, "int32")];
  return backend.execute("Range", [attr.type("Tidx", int32)], range)[0] as tf.Tensor1D;
}
