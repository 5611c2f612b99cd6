/**
 * The batched KV cache: the keys and values of every token so far, for each row of a batch.
 *
 * Rows are padded on the left, so that all of them end at the same slot and the next token goes to the same place in
 * each. The cache owns what follows from that: how many slots are filled, how many of them are padding, where the next
 * tokens go, which positions they have and what they may see.
 *
 * ```text
 *   slot    0     1     2     3     4     5    6     7 …
 *   row 0   The   quick brown fox jumped over  the   ·     padding 0
 *   row 1   ░     ░     ░     Never have I     ever  ·     padding 3
 *                                                    ↑ length 7, the next token's slot
 * ```
 */

import * as tf from "@tensorflow/tfjs";
import type { Ops } from "../ops.ts";
import type { GPT2Config } from "./config.ts";

/** The cache's tensors as a step of the model takes them. */
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

/** Slots come in multiples of this: growing is rare, and little is attended to in vain. */
const BUCKET = 16;

/** What the mask adds to the score of a token that must not be seen. Finite, so that padding, which sees nothing, is too. */
const HIDDEN = -1e9;

/** Keys and values of a batch; owns its tensors. */
export class KvCache {
  /** Slots in use, padding included. */
  length = 0;
  #tensors: CacheTensors;

  private constructor(
    private readonly config: GPT2Config,
    /** How many of each row's first slots are padding. */
    readonly padding: readonly number[],
    capacity: number,
  ) {
    this.#tensors = this.#allocate(capacity);
  }

  /** An empty cache with room for `capacity` tokens in each of `padding.length` rows. It grows when it must. */
  static allocate(config: GPT2Config, padding: readonly number[], capacity: number): KvCache {
    return new KvCache(config, padding, roundUp(capacity));
  }

  /** The memory that a cache takes: 2 (keys, values) × layers × rows × slots × D × 4 bytes. */
  static bytes({ n_layer, n_embd }: GPT2Config, batchSize: number, capacity: number): number {
    return 2 * n_layer * batchSize * roundUp(capacity) * n_embd * Float32Array.BYTES_PER_ELEMENT;
  }

  /** B. */
  get batchSize(): number {
    return this.padding.length;
  }

  /** S: slots that there is memory for. */
  get capacity(): number {
    return this.#tensors.slots.size;
  }

  /** What a step of the model takes. They stay the cache's. */
  get tensors(): CacheTensors {
    return this.#tensors;
  }

  /** [B, T]: the positions of the next `count` tokens: slots counted from each row's first real one. */
  positionIds(count: number): number[][] {
    return this.padding.map((padding) => Array.from({ length: count }, (_, i) => Math.max(0, this.length + i - padding)) // padding looks up position 0
    );
  }

  /** Makes room for `count` more tokens. */
  reserve(count: number): void {
    const needed = roundUp(this.length + count);
    if (needed <= this.capacity) return;
    const { keys, values, ...indices } = this.#tensors;
    const grow = (old: tf.Tensor4D) => {
      const grown = tf.pad(old, [[0, 0], [0, 0], [0, needed - old.shape[2]], [0, 0]]);
      old.dispose();
      return grown;
    };
    this.#tensors = { keys: keys.map(grow), values: values.map(grow), ...this.#index(needed) };
    tf.dispose(Object.values(indices));
  }

  /** Takes over the tensors that a step made, where the backend does not write in place. */
  adopt(written: CacheView["written"]): void {
    tf.dispose([...this.#tensors.keys, ...this.#tensors.values]);
    this.#tensors = { ...this.#tensors, ...written };
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    const { keys, values, padding, slots, rowStarts } = this.#tensors;
    tf.dispose([...keys, ...values, padding, slots, rowStarts]);
  }

  #allocate(capacity: number): CacheTensors {
    const { n_layer, n_head, n_embd } = this.config;
    const empty = () => tf.fill<tf.Rank.R4>([this.batchSize, n_head, capacity, n_embd / n_head], 0);
    const perLayer = () => Array.from({ length: n_layer }, empty);
    return { keys: perLayer(), values: perLayer(), ...this.#index(capacity) };
  }

  #index(capacity: number) {
    const heads = this.batchSize * this.config.n_head;
    return {
      padding: tf.tensor4d([...this.padding], [this.batchSize, 1, 1, 1], "int32"),
      slots: tf.range(0, capacity, 1, "int32"),
      rowStarts: tf.tensor3d(Int32Array.from({ length: heads }, (_, i) => i * capacity), [heads, 1, 1], "int32"),
    };
  }
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
    const padding = tf.less(cache.slots, cache.padding); // [B, 1, 1, S]
    const future = tf.greater(cache.slots, newSlots); // [T, S]
    this.mask = tf.mul(tf.cast(tf.logicalOr(padding, future), "float32"), HIDDEN);
    this.#location = ops.locateSlots(cache.rowStarts, newSlots);
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

function roundUp(slots: number): number {
  return Math.ceil(slots / BUCKET) * BUCKET;
}
