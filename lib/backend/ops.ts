/** What GPT-2 asks of a backend. The layers call these operations and know no more. */

import type * as tf from "@tensorflow/tfjs";
import type { CacheTensors } from "../gpt2/cache_view.ts";
import type { Int8Weight } from "./int8.ts";

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

/** The last layer, from a token's vector to a score for every word. */
export interface Head {
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
}

/** What a step of the model takes. */
export interface StepInputs {
  /** int [B, T]. */
  tokens: tf.Tensor2D;
  /** int [B, T]. */
  positions: tf.Tensor2D;
  /** int [T, 1]: where in the cache the tokens go. */
  newSlots: tf.Tensor2D;
  /** The cache before the step. */
  cache: CacheTensors;
}

/** The operations of GPT-2. Letters: B batch, T new tokens, S cache slots, H heads, D model width, V vocabulary. */
export interface Ops {
  /** [V, D], int [B, T] -> [B·T, D]. Row i of the result is the table's row for the i-th id. */
  embed(table: tf.Tensor2D, ids: tf.Tensor2D): tf.Tensor2D;
  /** weight [K, M], bias [M]: x·weight + bias, then the activation. Takes over both tensors. */
  linear(weight: tf.Tensor2D, bias: tf.Tensor1D, options: LinearOptions): Linear;
  /** wte [V, D]: x·wteᵀ. The embedding stays the caller's: GPT-2 uses it twice. */
  head(wte: tf.Tensor2D, options: LinearOptions): Head;
  /**
   * A linear layer of a weight that is int8 already: exactly these numbers and scales. Takes over the bias [M]. Missing where
   * the backend has no int8.
   */
  int8Linear?(weight: Int8Weight, bias: tf.Tensor1D, options: Omit<LinearOptions, "dtype">): Linear;
  /** Likewise the head, of an embedding [V, D]. */
  int8Head?(wte: Int8Weight, options: Omit<LinearOptions, "dtype">): Head;
  /** a, b [N, D] -> [N, D]: their sum. */
  add(a: tf.Tensor2D, b: tf.Tensor2D): tf.Tensor2D;
  /** [N, D] -> [N, D]: each row to mean 0 and variance 1, times gain [D], plus bias [D]. */
  layerNorm(x: tf.Tensor2D, gain: tf.Tensor1D, bias: tf.Tensor1D, epsilon: number): tf.Tensor2D;
  /** [B·T, 3D] -> three times [B, H, T, D/H]: query, key, value. `ids` [B, T] says what B and T are. */
  splitHeads(qkv: tf.Tensor2D, ids: tf.Tensor2D, heads: number): [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D];
  /** [B, H, T, D/H] -> [B·T, D]. */
  mergeHeads(x: tf.Tensor4D): tf.Tensor2D;
  /**
   * cache.slots int [S], cache.padding int [B, 1, 1, 1], newSlots int [T, 1] -> [B, 1, T, S]: 0 where a new token sees a
   * slot, a large negative number where not, which is in the padding and after the token itself.
   */
  mask(cache: { slots: tf.Tensor1D; padding: tf.Tensor4D }, newSlots: tf.Tensor2D): tf.Tensor4D;
  /** query [B, H, T, D/H], keys and values [B, H, S, D/H], mask [B, 1, T, S] -> [B, H, T, D/H]. */
  attend(query: tf.Tensor4D, keys: tf.Tensor4D, values: tf.Tensor4D, mask: tf.Tensor4D): tf.Tensor4D;
  /**
   * Where the tokens of a step go, in the form that {@link Ops.writeSlots} wants. `rowStarts` (int [B·H, 1, 1]) is the
   * first slot of each head when all slots of the cache are numbered through; `slots` (int [T, 1]) counts within a head.
   */
  locateSlots(rowStarts: tf.Tensor3D, slots: tf.Tensor2D): tf.Tensor;
  /** cache [B, H, S, D/H], update [B, H, T, D/H] -> [B, H, S, D/H]: the cache with the update at its location. */
  writeSlots(cache: tf.Tensor4D, update: tf.Tensor4D, location: tf.Tensor): tf.Tensor4D;
  /** `count` empty caches [B, H, S, D/H]: zeros. Where writing makes new tensors, they may share their memory. */
  emptyCaches(shape: [number, number, number, number], count: number): tf.Tensor4D[];
  /**
   * For backends where each input of a captured step costs a transfer: takes one tensor apart that holds them all. It is
   * int [B + 1, T + 1]: the tokens, in a column after them each row's padding, and in a row below them the new slots.
   * `cache`, one of the caches, tells how many slots there are.
   */
  unpackInputs?(
    packed: tf.Tensor2D,
    cache: tf.Tensor4D,
  ): Omit<StepInputs, "cache"> & { cache: Omit<CacheTensors, "keys" | "values"> };
  /** True when {@link Ops.writeSlots} changes the cache that it is given; false when it makes a new one. */
  readonly writesInPlace: boolean;
  /** [B·T, D] -> [B, D]: the last of each row's T tokens. `ids` [B, T] says what B and T are. */
  lastToken(x: tf.Tensor2D, ids: tf.Tensor2D): tf.Tensor2D;
  /** [B, V] in parts -> int [B]: the index of the largest logit. */
  argMax(logits: readonly tf.Tensor2D[]): tf.Tensor1D;
  /** [B, V] in parts -> [B]: the natural logarithm of the probability of the largest logit. */
  maxLogprob(logits: readonly tf.Tensor2D[]): tf.Tensor1D;
}
