/** What one step of the model sees of the KV cache. */

import * as tf from "@tensorflow/tfjs";
import type { Ops } from "../backend/ops.ts";

/** The cache's tensors, of the rows that go through the model together. */
export interface CacheTensors {
  /** For each layer and in it for each group of heads, [B, heads, S, D/H]. */
  keys: tf.Tensor4D[];
  /** Likewise. */
  values: tf.Tensor4D[];
  /** int [B, 1, 1, 1]: how many of a row's first slots are padding. */
  padding: tf.Tensor4D;
  /** int [S]: 0, 1, 2, … */
  slots: tf.Tensor1D;
  /** For each group of heads int [B·heads, 1, 1]: 0, S, 2·S, … */
  rowStarts: tf.Tensor3D[];
}

/** The cache as the layers see it during one step of T new tokens. */
export class CacheView {
  /** [B, 1, T, S]: 0 where a new token sees a slot, a large negative number where not. */
  readonly mask: tf.Tensor4D;
  /** The caches with the step's tokens in them, by layer, where the backend makes new ones. They outlive `tf.tidy`. */
  readonly written: Pick<CacheTensors, "keys" | "values"> = { keys: [], values: [] };
  readonly #locations: tf.Tensor[];

  /** `newSlots` (int [T, 1]) are where the new tokens go; they follow one another. */
  constructor(private readonly ops: Ops, private readonly cache: CacheTensors, newSlots: tf.Tensor2D) {
    this.#locations = cache.rowStarts.map((starts) => ops.locateSlots(starts, newSlots));
    this.mask = ops.mask(cache, newSlots);
  }

  /** key, value [B, heads, T, D/H] of the new tokens -> those of all slots, [B, heads, S, D/H]. */
  append(
    layer: number,
    group: number,
    key: tf.Tensor4D,
    value: tf.Tensor4D,
  ): { keys: tf.Tensor4D; values: tf.Tensor4D } {
    const index = layer * this.#locations.length + group, location = this.#locations[group];
    const keys = this.ops.writeSlots(this.cache.keys[index], key, location);
    const values = this.ops.writeSlots(this.cache.values[index], value, location);
    if (!this.ops.writesInPlace) {
      this.written.keys.push(tf.keep(keys));
      this.written.values.push(tf.keep(values));
    }
    return { keys, values };
  }
}
