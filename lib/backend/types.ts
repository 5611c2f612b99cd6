/** What a backend is: a place where models run. */

import type * as tf from "@tensorflow/tfjs";
import type { OperationTime } from "../tensorflow/capi/trace.ts";
import type { Dtype, Ops } from "./ops.ts";

/** What a machine could do at most, measured. */
export interface Roofs {
  /** Bytes per second from memory. */
  bandwidth: number;
  /** Operations per second in a large matrix product; a multiplication and an addition are two. */
  flops: number;
}

/** How a batch is spread over the processor. */
export interface Parallelism {
  /** Groups of rows that go through the model side by side. */
  lanes: number;
  /** Threads that each of them uses. */
  threads: number;
}

/** The backends there are, best first. */
export const BACKENDS = ["tensorflow", "onednn", "webgpu", "wasm", "cpu"] as const;

/** The name of a backend. */
export type BackendName = typeof BACKENDS[number];

/**
 * A captured step: one call for all of its operations.
 *
 * @internal
 */
export interface CapturedStep {
  /** Runs it on inputs in the order of the capture, as one of `lanes` such calls with `threads` threads each. */
  run(inputs: readonly tf.Tensor[], parallelism: Parallelism): Promise<tf.Tensor[]>;
  /**
   * Runs it `count` times, where it gives ids that are fed to the next run as input 0, with inputs `moving` plus 1: the ids of
   * each run, after one wait. Where the backend runs ahead.
   */
  chain?(
    inputs: readonly tf.Tensor[],
    moving: readonly number[],
    count: number,
    parallelism: Parallelism,
  ): Promise<ArrayLike<number>[]>;
  /** Frees it. */
  dispose(): void;
}

/** A place where models run. */
export interface Backend {
  /** Its name in tfjs. */
  readonly name: BackendName;
  /** For people: library, version, device, threads. */
  readonly description: string;
  /** Threads that a step uses. */
  readonly threads: number;
  /** The most groups of rows that can go through a model side by side: no more than threads. */
  readonly lanes: number;
  /** In how many groups of heads and hidden units a model is best divided, to be computed side by side. */
  readonly groups: number;
  /** The operations that models are made of. */
  readonly ops: Ops;
  /** Element types that the weights of linear layers can have. */
  readonly dtypes: readonly Dtype[];
  /**
   * Bytes that models and their caches can still get where it keeps them, or, where it is not known what is in use, that it has in
   * all; undefined if neither can be told beforehand.
   */
  availableMemory(): number | undefined;
  /** A float32 tensor whose values `fill` writes into the backend's own memory, where it can. */
  createTensor(shape: number[], fill: (values: Float32Array) => Promise<void> | void): Promise<tf.Tensor>;
  /** Keeps what `build` does as one function of its inputs; missing where the backend cannot. */
  capture?(
    inputs: readonly tf.Tensor[],
    build: (standIns: tf.Tensor[]) => tf.Tensor[],
    options: CaptureOptions,
  ): CapturedStep;
  /** Captured steps can be fed what the one before gives before its values are known: so far ahead of the host. */
  readonly runsAhead?: RunAhead;
  /** Where {@link Backend.ops} can only be captured: a backend on the same processor that computes them one by one, too. */
  oneByOne?(): Promise<Backend>;
  /** Captures hold any operation of tfjs, not just those of {@link Ops}. */
  readonly capturesAll?: boolean;
  /** Captures, runs that once and says when each operation ran; missing where the backend cannot. */
  trace?(
    inputs: readonly tf.Tensor[],
    build: (standIns: tf.Tensor[]) => tf.Tensor[],
    parallelism: Parallelism,
  ): Promise<OperationTime[]>;
  /**
   * Steps of so many tokens, and so many with logits, of a model of this dtype want kernels of their own: those of different classes
   * are captured apart.
   */
  sizeClass?(tokens: number, wanted: number, dtype: Dtype): string;
  /**
   * Where it takes long to capture a step, and caches are written in place: the most buckets of one, for which all steps of
   * several buckets are captured. Empty buckets stand for those that are not there, and more of them take several steps.
   */
  readonly stepBuckets?: StepBuckets;
  /** Measures what the device could do at most with weights of this type, where tfjs's operations would not show it. */
  measureRoofs?(dtype: Dtype): Promise<Roofs>;
  /** How a KV cache is best laid out there. */
  readonly cachePolicy: CachePolicy;
  /** Where each size of a step is compiled for itself: which one to use for so many tokens, rows or columns. */
  sizeFor?(count: number): number;
  /** True once it has lost its device: what runs on it throws, and {@link useBackend} starts it again. */
  readonly failed?: boolean;
}

/**
 * How many steps are started at once.
 *
 * @internal
 */
export interface RunAhead {
  /** Where it is certain that all rows go on. */
  readonly certain: number;
  /** Where a row may end: what it gets after that is thrown away. */
  readonly uncertain: number;
  /** No more than take so long: meanwhile nobody hears of a signal. */
  readonly milliseconds: number;
}

/**
 * The usual ones: where steps take the processor that the host runs on, and on a GPU, which has nothing to do while it waits.
 *
 * @internal
 */
export const RUN_AHEAD: Readonly<Record<"processor" | "gpu", RunAhead>> = {
  processor: { certain: 16, uncertain: 4, milliseconds: 100 },
  gpu: { certain: 32, uncertain: 1, milliseconds: Infinity },
};

/**
 * How a KV cache is best laid out.
 *
 * @internal
 */
export interface CachePolicy {
  /** A bucket of rows of their own pays when it spares at least so many slots. */
  readonly bucketCost: number;
  /** A step takes no longer for slots that are empty, so that rows may get at once all that they are going to need. */
  readonly emptySlotsAreFree: boolean;
  /** It takes long to make caches, or to use others than in the last step: the last ones are kept. */
  readonly keepsSpare?: boolean;
  /** How many slots to make when so many are needed. */
  slotsFor(needed: number): number;
  /**
   * Where a step computes with all rows that there is room for, for how many to make room when so many are needed. Missing
   * where rows that are not in use cost nothing: then there may be room for more.
   */
  roomFor?(rows: number): number;
}

/**
 * Numbers of buckets in a step.
 *
 * @internal
 */
export interface StepBuckets {
  /** Those whose rows are fed one token each. */
  readonly singles: number;
  /** Those whose tokens are seen as a rectangle. */
  readonly rectangles: number;
}

/**
 * What a captured step is for.
 *
 * @internal
 */
export interface CaptureOptions {
  /** It will run often: memory for faster kernels is well spent. */
  repeated: boolean;
}
