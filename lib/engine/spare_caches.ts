/** The memory of a cache that is not needed any more, kept for the next one of the same model. */

import * as tf from "@tensorflow/tfjs";
import type { GPT2 } from "../gpt2/model.ts";

/**
 * Caches of the last bucket that a model's rows left, at most. The next one takes them as they are: no row sees a slot that it did
 * not write.
 *
 * @internal
 */
export class SpareCaches {
  static readonly #ofModels = new WeakMap<GPT2, SpareCaches>();
  #caches: tf.Tensor4D[] = [];
  #ended = false;

  /** Those of a model, with which they end. */
  static of(model: GPT2): SpareCaches {
    let spare = SpareCaches.#ofModels.get(model);
    if (!spare) {
      SpareCaches.#ofModels.set(model, spare = new SpareCaches());
      model.own(spare);
    }
    return spare;
  }

  /** So many caches of that shape, if they are here. Others are freed: their memory may be needed. */
  take(shape: number[], count: number): tf.Tensor4D[] | undefined {
    const caches = this.#caches;
    this.#caches = [];
    if (caches.length === count && tf.util.arraysEqual(caches[0].shape, shape)) return caches;
    tf.dispose(caches);
  }

  /** Takes over caches of one shape. */
  give(caches: tf.Tensor4D[]): void {
    tf.dispose(this.#caches);
    this.#caches = caches;
    if (this.#ended) this.dispose();
  }

  /** Frees them, and whatever comes later. */
  dispose(): void {
    this.#ended = true;
    tf.dispose(this.#caches);
    this.#caches = [];
  }
}
