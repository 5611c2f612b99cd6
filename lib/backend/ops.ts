/** What GPT-2 asks of a backend. The layers call these operations and know no more. */

import type * as tf from "@tensorflow/tfjs";
import type { SamplingOps } from "./sampling.ts";
import type { ActivationRange, Int8Weight } from "./int8.ts";

/** Element types that the weights of linear layers can have; which of them there are is for the backend to say. */
export const DTYPES = ["float32", "bfloat16", "int8"] as const;

/** One of {@link DTYPES}. */
export type Dtype = typeof DTYPES[number];

/** Bytes of one weight of each type. */
export const BYTES_PER_WEIGHT: Readonly<Record<Dtype, number>> = { float32: 4, bfloat16: 2, int8: 1 };

/** What follows a linear layer in the same step. */
export type Activation = "none" | "gelu_new";

/** A linear layer whose weights the backend keeps in whatever form it likes. */
export interface Linear {
  /** [N, K] -> [N, M]. */
  apply(x: tf.Tensor2D): tf.Tensor2D;
  /** Frees the weights. */
  dispose(): void;
}

/** What layer norm knows, under the checkpoint's names. */
export interface Norm {
  /** The gain, [D]. */
  readonly weight: tf.Tensor1D;
  /** [D]. */
  readonly bias: tf.Tensor1D;
  /** Added to the variance. */
  readonly epsilon: number;
}

/** The last layer, from a token's vector to a score for every word. */
export interface DividedLinear {
  /** [N, D] -> the logits [N, V], in as many parts, side by side, as the backend computes apart. */
  apply(x: tf.Tensor2D): tf.Tensor2D[];
  /** Frees the weights. */
  dispose(): void;
}

/** How a linear layer is to be made. */
export interface LinearOptions {
  /** Its name in the checkpoint, e.g. `h.0.mlp.c_fc`. */
  name: string;
  /** What follows it. Default: nothing. */
  activation?: Activation;
  /** What its weights are to be. */
  dtype: Dtype;
  /** How many numbers the whole model has: memory may be spent on the speed of small ones. Default: few. */
  modelSize?: number;
  /**
   * What an int8 layer takes its inputs to range over, measured beforehand. Default: up to each row's own largest magnitude,
   * found as it comes.
   */
  inputRange?: ActivationRange;
}

/**
 * What the model is fed in one step: N tokens of some rows, each row's one after another, and the rows bucket by bucket.
 * Write location, mask and embedding follow from it. Token p of a row lies in slot p.
 */
export interface StepInputs {
  /** int [N]. */
  tokens: tf.Tensor1D;
  /** int [N]: each token's position in its row, which is its slot. */
  positions: tf.Tensor1D;
  /** int [M]: after which of the tokens logits are wanted; null for all of them. */
  wanted: tf.Tensor1D | null;
  /** The rows' part of the cache. */
  buckets: readonly BucketInputs[];
}

/** Rows with the same number of slots, S, during a step that feeds them n tokens. */
export interface BucketInputs {
  /** int [n]. */
  positions: tf.Tensor1D;
  /** How n tokens make R rows; null when each row has one, in the order of the rows. */
  rectangle: Rectangle | null;
  /** int [S]: 0, 1, 2, … */
  slots: tf.Tensor1D;
  /** For each group of heads int [R, heads]: the first slot of each head when all slots of the bucket are numbered through. */
  rowStarts: readonly tf.Tensor2D[];
  /** For each group of heads the {@link Caches.tensors}. */
  caches: readonly (readonly tf.Tensor[])[];
}

/** Rows that are fed different numbers of tokens, seen as a rectangle of as many columns as the most fed one has tokens. */
export interface Rectangle {
  /** int [R, T]: which of the n tokens stands in each cell. Cells beyond a row's tokens hold 0, and nobody reads them. */
  tokens: tf.Tensor2D;
  /** int [n]: the row of each token. */
  rows: tf.Tensor1D;
  /** int [n]: its column. */
  columns: tf.Tensor1D;
}

/** Attention of one bucket in one step, for groups of so many heads. */
export interface Attention {
  /**
   * qkv [n, 3·heads·D/H] -> [n, heads·D/H]. Writes the tokens' keys and values into their slots of a layer's caches, then each
   * token attends to the slots of its row up to its own. Where the backend does not write in place, `made` are the layer's caches
   * from then on, each [R, heads, S, D/H].
   */
  apply(qkv: tf.Tensor2D, layer: number): { attended: tf.Tensor2D; made: readonly tf.Tensor4D[] };
}

/** Type and number of a model's weights. */
export type WeightKind = Pick<LinearOptions, "dtype" | "modelSize">;

/** Rows of zeros after those of N tokens, where products of so few rows take longer than those of a few more. */
export interface RowPadding {
  /** [N, m] -> [N or more, m]. */
  add(x: tf.Tensor2D): tf.Tensor2D;
  /** Undoes it. */
  remove(x: tf.Tensor2D): tf.Tensor2D;
}

/** What caches are made for. */
export interface CacheShape {
  /** Layers of the model. */
  readonly layers: number;
  /** Heads of the group. */
  readonly heads: number;
  /** D/H. */
  readonly headSize: number;
  /** Of a number: see {@link Ops.cachedBytes}. */
  readonly cachedBytes: number;
  /** Memory that no bucket uses at the moment, of one KV cache or of all of a model: to be taken from, and to be given to. */
  readonly spare: tf.Tensor[];
}

/** Where the first tokens of a row are copied to. */
export interface RowCopy {
  readonly from: number;
  readonly to: number;
  /** How many tokens. */
  readonly length: number;
}

/**
 * The keys and values of a bucket's R rows in all layers, with the heads of one group: caches [R, heads, S, D/H], the keys of the
 * first layer, its values, the keys of the second, and so on.
 */
export interface Caches {
  /** What a step is given: {@link Ops.cacheTensors}, in the order of the layers. */
  readonly tensors: readonly tf.Tensor[];
  /** Bytes that they take. */
  readonly bytes: number;
  /** Makes it R rows of S slots, of which the first hold so many tokens each. They are kept. */
  resize(rows: number, slots: number, lengths: readonly number[]): void;
  /** Copies rows of caches that have as many slots at most, which may be these: then no row is both read and written. */
  copy(source: this, moves: readonly RowCopy[]): void;
  /** A copy of the first tokens of a row in one of the caches: [heads, length, D/H]. The caller frees it. */
  read(cache: number, row: number, length: number): tf.Tensor3D;
  /** Takes over what a step made, where the backend does not write in place. */
  adopt?(tensors: readonly tf.Tensor4D[]): void;
  /** Gives back memory beyond what R rows of S slots take. Arguments as of {@link Caches.resize}. */
  trim(lengths: readonly number[]): void;
  /** Frees the memory, or makes it {@link CacheShape.spare}. */
  dispose(): void;
}

/**
 * The operations of GPT-2. Letters: N tokens of a step, M of them with logits, R rows of a bucket, S its slots, T columns of
 * a rectangle, H heads, D model width, V vocabulary.
 *
 * @internal
 */
export interface Ops {
  /** [V, D], int [N] -> [N, D]. Row i of the result is the table's row for the i-th id. */
  embed(table: tf.Tensor2D, ids: tf.Tensor1D): tf.Tensor2D;
  /** weight [K, M], bias [M]: x·weight + bias, then the activation. Takes over both tensors. */
  linear(weight: tf.Tensor2D, bias: tf.Tensor1D, options: LinearOptions): Linear;
  /** The same of x after layer norm, where the backend makes one layer of both. The norm stays the caller's. */
  normedLinear?(norm: Norm, weight: tf.Tensor2D, bias: tf.Tensor1D, options: LinearOptions): Linear;
  /** wte [V, D]: x·wteᵀ. The embedding stays the caller's: GPT-2 uses it twice. */
  head(wte: tf.Tensor2D, options: LinearOptions): DividedLinear;
  /**
   * A linear layer of a weight that is int8 already: exactly these numbers and scales. Takes over the bias [M]. Missing where
   * the backend has no int8.
   */
  int8Linear?(weight: Int8Weight, bias: tf.Tensor1D, options: Omit<LinearOptions, "dtype">): Linear;
  /** Likewise the head, of an embedding [V, D]. */
  int8Head?(wte: Int8Weight, options: Omit<LinearOptions, "dtype">): DividedLinear;
  /** True where {@link LinearOptions.inputRange} is of use. */
  readonly takesInputRanges?: boolean;
  /** [N, K] -> [N, M]: one layer after the other. What goes from the first to the second is the backend's own business. */
  chain(first: Linear, second: Linear, x: tf.Tensor2D): tf.Tensor2D;
  /** a, b [N, D] -> [N, D]: their sum. */
  add(a: tf.Tensor2D, b: tf.Tensor2D): tf.Tensor2D;
  /** [N, D] -> [N, D]: each row to mean 0 and variance 1, times gain [D], plus bias [D]. */
  layerNorm(x: tf.Tensor2D, gain: tf.Tensor1D, bias: tf.Tensor1D, epsilon: number): tf.Tensor2D;
  /**
   * How a bucket's tokens attend in this step, which feeds so many tokens in all, with the heads of one group: what all layers
   * share is made once.
   */
  attention(bucket: BucketInputs, group: number, tokens: number): Attention;
  /** [N, m] -> for each bucket the rows of its tokens, [n, m]. */
  splitByBucket(x: tf.Tensor2D, buckets: readonly BucketInputs[]): tf.Tensor2D[];
  /** Undoes {@link Ops.splitByBucket}. */
  joinBuckets(parts: readonly tf.Tensor2D[]): tf.Tensor2D;
  /** How a step of tokens [N] is padded outside attention, with weights of this type and number. */
  rowPadding(tokens: tf.Tensor1D, weights: WeightKind): RowPadding;
  /** [N, D], int [M] -> [M, D]: the rows asked for. */
  pick(x: tf.Tensor2D, rows: tf.Tensor1D): tf.Tensor2D;
  /** [M, V] in parts -> int [M]: the index of the largest logit. */
  argMax(logits: readonly tf.Tensor2D[]): tf.Tensor1D;
  /** [M, V] in parts -> [M]: the natural logarithm of the probability of the largest logit. */
  maxLogprob(logits: readonly tf.Tensor2D[]): tf.Tensor1D;

  /** What the sampler needs besides tfjs. */
  readonly sampling: SamplingOps;
  /** True when {@link Attention.apply} changes the caches that it is given; false when it makes new ones. */
  readonly writesInPlace: boolean;
  /** How many tensors hold the caches of so many layers. */
  cacheTensors(layers: number): number;
  /** The bytes of a number in a model's caches, by the type of its weights: 4 of float32, 2 of bfloat16. */
  cachedBytes(dtype: Dtype): number;
  /** Empty caches, with room for so many rows of so many slots. */
  createCaches(shape: CacheShape, rows: number, slots: number): Caches;
  /** Where steps take int32 tensors from elsewhere than tfjs keeps them: a tensor there, which many steps are given. Takes it over. */
  keepForSteps?<T extends tf.Tensor>(x: T): T;
}
