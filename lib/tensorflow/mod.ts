/**
 * tfjs on TensorFlow's own library under Deno, without node-gyp: tfjs-node's kernels over libtensorflow's C API.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import * as tf from "@tensorflow/tfjs";
 * import { useTensorflow } from "./mod.ts";
 *
 * await useTensorflow();
 * assert.equal(tf.getBackend(), "tensorflow");
 * assert.deepEqual(await tf.matMul([[1, 2]], [[3], [4]]).array(), [[11]]);
 * ```
 *
 * @module
 */

import type * as tf from "@tensorflow/tfjs";
import { checkThreads } from "../backend/threads.ts";
import type { Attribute } from "./capi/attributes.ts";
import { openTensorflow, type TensorflowOptions } from "./tfjs/backend.ts";
import type { RunOptions } from "./capi/binding.ts";

export { attr, type Attribute, DataType } from "./capi/attributes.ts";
export type { TensorflowOptions } from "./tfjs/backend.ts";
export type { RunOptions } from "./capi/binding.ts";
export type { Threads } from "./capi/context.ts";
export { TensorflowError } from "./capi/library.ts";

/** What TensorFlow can do that tfjs has no words for. */
export interface Tensorflow {
  /**
   * tfjs-node's own additions to tfjs: `loadSavedModel`, `decodeImage`, `encodePng`, `tensorBoard`, `summaryFileWriter`
   * and others.
   */
  readonly node: typeof import("@tensorflow/tfjs-node-gpu").node;
  /** How many tensors nobody disposed of, so that they had to be freed when the garbage collector found them. */
  readonly collectedTensors: number;
  /** Runs any TensorFlow operation by its name. Throws a {@link TensorflowError} with TensorFlow's message. */
  execute(
    op: string,
    attributes: readonly Attribute[],
    inputs: readonly tf.Tensor[],
    outputCount?: number,
  ): tf.Tensor[];
  /** Keeps what `build` does as one function of its inputs, without computing it. */
  capture(inputs: readonly tf.Tensor[], build: (standIns: tf.Tensor[]) => tf.Tensor[]): CapturedFunction;
}

/** Operations that were captured: one call for all of them. */
export interface CapturedFunction {
  /** Runs them on a thread of its own, on inputs in the order of the capture. */
  run(inputs: readonly tf.Tensor[], options?: RunOptions): Promise<tf.Tensor[]>;
  /** Frees the function. */
  dispose(): void;
}

/**
 * Finds libtensorflow, or installs it after saying how large it is, and makes tfjs run on it. tfjs has one backend of a
 * name in a process, so later calls give the first one's, whatever their options. Throws a `SetupError` where it cannot
 * be installed, a RangeError for more threads than cores, and what the loader says where it cannot be opened.
 */
export async function useTensorflow(options: TensorflowOptions = {}): Promise<Tensorflow> {
  if (options.threads !== undefined) checkThreads(options.threads);
  return await openTensorflow(options);
}
