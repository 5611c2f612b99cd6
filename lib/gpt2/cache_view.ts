/** What one step of the model sees of the KV cache. */

import * as tf from "@tensorflow/tfjs";
import type { Ops } from "../ops.ts";

/** The cache's tensors, of the rows that go through the model together. */
export interface CacheTensors {
  /** For each layer, [B, H, S, D/H]. */
  keys: tf.Tensor4D[];
  /** For each layer, [B, H, S, D/H]. */
  values: tf.Tensor4D[];
  /** int [B, 1, 1, 1]: how many of a row's first slots are padding. */
  padding: tf.Tensor4D;
  /** int [S]: 0, 1, 2, … */
  slots: tf.Tensor1D;
  /** int [B·H, 1, 1]: 0, S, 2·S, … */
  rowStarts: tf.Tensor3D;
}

/** The cache as the layers see it during one step of T new tokens. */
export class CacheView {
  /** [B, 1, T, S]: 0 where a new token sees a slot, a large negative number where not. */
  readonly mask: tf.Tensor4D;
  /** The caches with the step's tokens in them, by layer, where the backend makes new ones. They outlive `tf.tidy`. */
  readonly written: Pick<CacheTensors, "keys" | "values"> = { keys: [], values: [] };
  readonly #location: tf.Tensor;

  /** `newSlots` (int [T, 1]) are where the new tokens go; they follow one another. */
  constructor(private readonly ops: Ops, private readonly cache: CacheTensors, newSlots: tf.Tensor2D) {
    this.#location = ops.locateSlots(cache.rowStarts, newSlots);
    this.mask = ops.mask(cache, newSlots);
  }

  /** key, value [B, H, T, D/H] of the new tokens -> those of all slots, [B, H, S, D/H]. */
  append(layer: number, key: tf.Tensor4D, value: tf.Tensor4D): { keys: tf.Tensor4D; values: tf.Tensor4D } {
    const keys = this.ops.writeSlots(this.cache.keys[layer], key, this.#location);
    const values = this.ops.writeSlots(this.cache.values[layer], value, this.#location);
    if (!this.ops.writesInPlace) {
      this.written.keys.push(tf.keep(keys));
      this.written.values.push(tf.keep(values));
    }
    return { keys, values };
  }
}
