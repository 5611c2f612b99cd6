/** Caches that leave their tensors to the next ones. */

import * as tf from "@tensorflow/tfjs";
import type { CacheShape } from "../backend/ops.ts";
import { type CacheTensorOps, TensorCaches } from "../backend/tensor_caches.ts";

/**
 * The next caches of the same shape take the tensors as they are: no row sees a slot that it did not write. To make new ones takes
 * long on a GPU, and longer still that XLA's programs then find them at other addresses: their graphs of kernels must be changed.
 */
export class ReusedCaches extends TensorCaches {
  readonly #spare: tf.Tensor[];

  /** Arguments as of {@link TensorCaches}. */
  constructor(ops: CacheTensorOps, shape: CacheShape, rows: number, slots: number) {
    const emptyCaches: CacheTensorOps["emptyCaches"] = (wanted, count) => {
      const spare = shape.spare.splice(0) as tf.Tensor4D[];
      if (spare.length === count && tf.util.arraysEqual(spare[0].shape, wanted)) return spare;
      tf.dispose(spare); // their memory may be needed
      return ops.emptyCaches(wanted, count);
    };
    super({ ...ops, emptyCaches }, shape, rows, slots);
    this.#spare = shape.spare;
  }

  /** Leaves the tensors to the next ones, and frees what was left before. */
  override dispose(): void {
    tf.dispose(this.#spare.splice(0));
    this.#spare.push(...this.tensors);
  }
}
