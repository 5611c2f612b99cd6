/** Caches that leave their tensors to the next ones. */

import * as tf from "@tensorflow/tfjs";
import type { CacheShape } from "../backend/ops.ts";
import { type CacheTensorOps, TensorCaches } from "../backend/tensor_caches.ts";

/**
 * The next caches of the same shape take the tensors as they are: no row sees a slot that it did not write. To make new ones takes
 * long on a GPU, and longer still that XLA's programs then find them at other addresses: their graphs of kernels must be changed.
 *
 * A tensor holds the keys and values of a layer, [R, 2·heads, S, D/H]: those of all heads, then these.
 */
export class ReusedCaches extends TensorCaches {
  readonly #spare: tf.Tensor[];

  /** Arguments as of {@link TensorCaches}. */
  constructor(ops: CacheTensorOps, shape: CacheShape, rows: number, slots: number) {
    const emptyCaches: CacheTensorOps["emptyCaches"] = ([rows, heads, slots, size], count) => {
      const both: [number, number, number, number] = [rows, 2 * heads, slots, size];
      const spare = shape.spare.splice(0) as tf.Tensor4D[];
      if (spare.length === count / 2 && tf.util.arraysEqual(spare[0].shape, both)) return spare;
      tf.dispose(spare); // their memory may be needed
      return ops.emptyCaches(both, count / 2);
    };
    super({ ...ops, emptyCaches }, shape, rows, slots);
    this.#spare = shape.spare;
  }

  /** See {@link Caches.read}. */
  override read(cache: number, row: number, length: number): tf.Tensor3D {
    return tf.tidy(() => tf.split<tf.Tensor3D>(super.read(Math.floor(cache / 2), row, length), 2)[cache % 2]);
  }

  /** Leaves the tensors to the next ones, and frees what was left before. */
  override dispose(): void {
    tf.dispose(this.#spare.splice(0));
    this.#spare.push(...this.tensors);
  }
}
