/**
 * Masked self-attention over the KV cache, composed of smaller operations (Vaswani et al. 2017, section 3.2). The query holds
 * the factor 1/√(D/H) already. Letters: n tokens of a bucket, R its rows, S its slots, T columns of a rectangle.
 */

import * as tf from "@tensorflow/tfjs";
import type { Attention, BucketInputs } from "./ops.ts";

/** What differs between backends. */
export interface AttentionParts {
  /** As tf.reshape. */
  reshape<R extends tf.Tensor>(x: tf.Tensor, shape: number[]): R;
  /** table's rows by their numbers, in the shape of these. */
  gather<R extends tf.Tensor>(table: tf.Tensor, rows: tf.Tensor): R;
  /** [n, 3m] -> three times [n, m]. */
  thirds(x: tf.Tensor2D): tf.Tensor2D[];
  /** int [R, T] -> int []: T. */
  columnsOf(x: tf.Tensor2D): tf.Scalar;
  /** query [R, H, T, D/H], keys [R, H, S, D/H] -> [R, H, T, S]: the dot products. */
  scores(query: tf.Tensor4D, keys: tf.Tensor4D): tf.Tensor4D;
  /** weights [R, H, T, S] of S values [R, H, S, D/H] -> [R, H, T, D/H]: their sums. */
  weigh(weights: tf.Tensor4D, values: tf.Tensor4D): tf.Tensor4D;
  /**
   * How to write to the group's caches, whose slots of all heads of the bucket `locations` int [n, H] numbers through, as if the
   * caches were a tensor each.
   */
  writer(bucket: BucketInputs, group: number, locations: tf.Tensor2D): CacheWriter;
}

/**
 * A layer's number, keys and values [n, H·D/H] -> the layer's caches, [R, H, S, D/H], with these in the slots of their tokens.
 */
export type CacheWriter = (
  layer: number,
  keys: tf.Tensor2D,
  values: tf.Tensor2D,
) => { keys: tf.Tensor4D; values: tf.Tensor4D };

/** One that writes to the caches one by one, by their numbers. */
export function oneByOne(write: (cache: number, update: tf.Tensor2D) => tf.Tensor4D): CacheWriter {
  return (layer, keys, values) => ({ keys: write(2 * layer, keys), values: write(2 * layer + 1, values) });
}

/** One bucket's attention in a step, with the heads of one group. */
export function composeAttention(parts: AttentionParts, bucket: BucketInputs, group: number): Attention {
  const { reshape, gather, thirds } = parts, { positions, rectangle, slots } = bucket;
  const starts = bucket.rowStarts[group], heads = starts.shape[1]; //                              [R, heads]
  const own = rectangle ? gather<tf.Tensor2D>(starts, rectangle.rows) : starts; //                 [n, heads]
  const write = parts.writer(bucket, group, tf.add(own, reshape(positions, [-1, 1])));
  const inRectangle = rectangle && cellsOf(rectangle.tokens, heads); //                            [R, heads, T]
  const places = rectangle && placesOf(rectangle, heads); //                                       [n, heads]
  const seenFrom = rectangle
    ? tf.expandDims(tf.expandDims(gather(positions, rectangle.tokens), 1), 3) //                   [R, 1, T, 1]
    : reshape(positions, [-1, 1, 1, 1]);
  const mask = hiddenFrom(slots, seenFrom); //                                                     [R, 1, T, S]

  /** Which query stands in each cell, when all heads of all tokens are numbered through: n·heads, n·heads + 1, … */
  function cellsOf(tokens: tf.Tensor2D, heads: number): tf.Tensor {
    return tf.add(times(tf.expandDims(tokens, 1), heads), reshape(numbers(heads), [heads, 1]));
  }

  /** Which cell each token's heads are in, when all cells [R, heads, T] are numbered through. */
  function placesOf({ tokens, rows, columns }: NonNullable<BucketInputs["rectangle"]>, heads: number): tf.Tensor {
    const line = tf.add(times(reshape(rows, [-1, 1]), heads), numbers(heads));
    return tf.add(tf.mul(line, parts.columnsOf(tokens)), reshape(columns, [-1, 1]));
  }

  return {
    apply(qkv, layer) {
      const [query, key, value] = thirds(qkv), size = query.shape[1] / heads;
      const written = write(layer, key, value);
      const queries: tf.Tensor4D = inRectangle
        ? gather(reshape(query, [-1, size]), inRectangle) //                                       [R, heads, T, D/H]
        : reshape(query, [-1, heads, 1, size]);
      const scores = parts.scores(queries, written.keys); //                                       [R, heads, T, S]
      const weights = tf.softmax<tf.Tensor4D>(tf.add(scores, mask));
      const sums = parts.weigh(weights, written.values); //                                        [R, heads, T, D/H]
      const attended = places ? gather(reshape(sums, [-1, size]), places) : sums; //               [n, heads, D/H]
      return { attended: reshape(attended, [-1, heads * size]), made: [written.keys, written.values] };
    },
  };
}

/** What the mask adds to the score of a token that must not be seen. Finite: a cell that nobody reads may see nothing. */
const HIDDEN = -1e9;

/** slots int [S], positions int [R, 1, T, 1] -> [R, 1, T, S]: 0 up to the position, a large negative number after it. */
function hiddenFrom(slots: tf.Tensor1D, positions: tf.Tensor): tf.Tensor4D {
  return tf.mul(tf.cast(tf.greater(slots, positions), "float32"), HIDDEN);
}

function numbers(count: number): tf.Tensor1D {
  return tf.range(0, count, 1, "int32");
}

function times(x: tf.Tensor, factor: number): tf.Tensor {
  return tf.mul(x, tf.scalar(factor, "int32"));
}
