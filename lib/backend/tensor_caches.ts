/** Caches that are a tensor each. */

import * as tf from "@tensorflow/tfjs";
import type { Caches, CacheShape, RowCopy } from "./ops.ts";

/** What is done with such a tensor, [R, heads, S, D/H]. */
export interface CacheTensorOps {
  /** `count` empty ones: zeros. Where writing makes new tensors, they may share their memory. */
  emptyCaches(shape: [number, number, number, number], count: number): tf.Tensor4D[];
  /** A copy with other numbers of rows and slots: what it has in both, zeros elsewhere. */
  resizeCache(cache: tf.Tensor4D, rows: number, slots: number): tf.Tensor4D;
  /**
   * A cache in which rows `to` are copies of rows `from` of `source`, as far as that has slots. It may be the same cache, and no
   * row is then both. In place where the backend writes in place: then it is `cache` itself, and only these rows cost anything.
   */
  copyRows(cache: tf.Tensor4D, to: readonly number[], source: tf.Tensor4D, from: readonly number[]): tf.Tensor4D;
  /** What it holds now, as a tensor that tfjs's operations take; the caller frees it. */
  readCache(cache: tf.Tensor4D): tf.Tensor4D;
}

/** These operations in plain tfjs. */
export const plainCacheOps: CacheTensorOps = {
  emptyCaches(shape, count) {
    return Array.from({ length: count }, () => tf.fill(shape, 0)); // made where it stays, not on the host
  },

  resizeCache(cache, rows, slots) {
    const [R, , S] = cache.shape;
    return tf.tidy(() => {
      const common: tf.Tensor4D = tf.slice(cache, [0, 0, 0, 0], [Math.min(R, rows), -1, Math.min(S, slots), -1]);
      const missing = [rows - common.shape[0], slots - common.shape[2]];
      return tf.pad(common, [[0, missing[0]], [0, 0], [0, missing[1]], [0, 0]]);
    });
  },

  copyRows(cache, to, source, from) {
    const [R, , S] = cache.shape;
    return tf.tidy(() => {
      const rows: tf.Tensor4D = tf.gather(source, tf.tensor1d([...from], "int32"));
      const wide = rows.shape[2] < S ? plainCacheOps.resizeCache(rows, from.length, S) : rows;
      const indices = Int32Array.from({ length: R }, (_, row) => row);
      to.forEach((row, i) => indices[row] = R + i);
      return tf.gather(tf.concat([cache, wide], 0), tf.tensor1d(indices, "int32"));
    });
  },

  readCache(cache) {
    return cache.clone();
  },
};

/** See {@link Caches}. */
export class TensorCaches implements Caches {
  /** In the order of the caches. */
  tensors: readonly tf.Tensor4D[];

  /** Empty ones, with room for so many rows of so many slots. */
  constructor(
    private readonly ops: CacheTensorOps,
    { layers, heads, headSize }: CacheShape,
    rows: number,
    slots: number,
  ) {
    this.tensors = ops.emptyCaches([rows, heads, slots, headSize], 2 * layers);
  }

  /** Bytes of the tensors. */
  get bytes(): number {
    return this.tensors.reduce((sum, { size }) => sum + size * Float32Array.BYTES_PER_ELEMENT, 0);
  }

  /** See {@link Caches.resize}. */
  resize(rows: number, slots: number): void {
    const [R, , S] = this.tensors[0].shape;
    if (R !== rows || S !== slots) this.#change((cache) => this.ops.resizeCache(cache, rows, slots));
  }

  /** See {@link Caches.copy}. */
  copy(source: TensorCaches, moves: readonly RowCopy[]): void {
    const to = moves.map((move) => move.to), from = moves.map((move) => move.from);
    this.#change((cache, i) => this.ops.copyRows(cache, to, source.tensors[i], from));
  }

  /** See {@link Caches.read}. */
  read(cache: number, row: number, length: number): tf.Tensor3D {
    return tf.tidy(() => {
      const tokens = tf.slice(this.ops.readCache(this.tensors[cache]), [row, 0, 0, 0], [1, -1, length, -1]);
      return tf.squeeze(tokens, [0]);
    });
  }

  /** See {@link Caches.adopt}. */
  adopt(tensors: readonly tf.Tensor4D[]): void {
    this.dispose();
    this.tensors = tensors;
  }

  /** Nothing: it never has more than it was asked for. */
  trim(): void {}

  /** Frees the tensors. */
  dispose(): void {
    tf.dispose([...this.tensors]);
  }

  #change(make: (cache: tf.Tensor4D, i: number) => tf.Tensor4D): void {
    this.tensors = this.tensors.map((cache, i) => {
      const changed = make(cache, i);
      if (changed !== cache) cache.dispose();
      return changed;
    });
  }
}
