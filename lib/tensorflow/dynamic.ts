/**
 * TensorFlow's operations as tfjs does not offer them: with shapes that are known only when they run, so that one captured
 * step serves every number of rows, tokens and slots.
 */

import * as tf from "@tensorflow/tfjs";
import { attr, type Attribute, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

const { float, int32 } = DataType;
const typeOf = (x: tf.Tensor) => attr.type("T", x.dtype === "int32" ? int32 : float);

/** The operations on a backend. */
export type DynamicOperations = ReturnType<typeof dynamicOperations>;

/** Makes them. */
export function dynamicOperations(backend: TensorflowBackend) {
  const run = <R extends tf.Tensor>(op: string, attributes: Attribute[], inputs: tf.Tensor[]) =>
    backend.execute(op, attributes, inputs)[0] as R;
  const ints = (...values: number[]) => tf.tensor1d(values, "int32");
  const axis = (value: number) => tf.scalar(value, "int32");
  return {
    /** The one result of an operation. */
    run,
    /** A constant int [count]. */
    ints,
    /** int [rank]. */
    shapeOf: (x: tf.Tensor) => run<tf.Tensor1D>("Shape", [typeOf(x), attr.type("out_type", int32)], [x]),
    /** `shape` is constant, with -1 for what follows from the rest, or computed. */
    reshape: <R extends tf.Tensor>(x: tf.Tensor, shape: number[] | tf.Tensor) =>
      run<R>("Reshape", [typeOf(x), attr.type("Tshape", int32)], [x, Array.isArray(shape) ? ints(...shape) : shape]),
    /** table's rows (along axis 0) by their numbers, in the shape of these. tfjs's gather reads them back to the host. */
    gather: <R extends tf.Tensor>(table: tf.Tensor, rows: tf.Tensor) =>
      run<R>("GatherV2", [
        attr.type("Tparams", table.dtype === "int32" ? int32 : float),
        attr.type("Tindices", int32),
        attr.type("Taxis", int32),
        attr.int("batch_dims", 0),
      ], [table, rows, axis(0)]),
    /** Side by side along axis 0. */
    concat: <R extends tf.Tensor>(parts: readonly R[]) =>
      run<R>("ConcatV2", [typeOf(parts[0]), attr.int("N", parts.length), attr.type("Tidx", int32)], [
        ...parts,
        axis(0),
      ]),
    /** Equal parts along axis 1. */
    columns: <R extends tf.Tensor>(x: R, count: number) =>
      backend.execute("Split", [typeOf(x), attr.int("num_split", count)], [axis(1), x], count) as R[],
    /** Parts of x along axis 0; `sizes` int [count]. */
    rows: (x: tf.Tensor2D, sizes: tf.Tensor1D, count: number) =>
      backend.execute("SplitV", [typeOf(x), attr.type("Tlen", int32), attr.int("num_split", count)], [
        x,
        sizes,
        axis(0),
      ], count) as tf.Tensor2D[],
    /** int [rank] -> int []: one of its numbers. */
    element: (x: tf.Tensor1D, i: number) =>
      run<tf.Scalar>("StridedSlice", [
        typeOf(x),
        attr.type("Index", int32),
        ...["begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask"].map((name) => attr.int(name, 0)),
        attr.int("shrink_axis_mask", 1),
      ], [x, ints(i), ints(i + 1), ints(1)]),
  };
}
