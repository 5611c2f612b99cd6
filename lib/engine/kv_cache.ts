/**
 * The batched KV cache: the keys and values of every token so far, for each row of a batch.
 *
 * Rows are padded on the left, so that all of them end at the same slot and the next token goes to the same place in
 * each. The cache owns what follows from that: how many slots are filled, how many of them are padding, where the next
 * tokens go and which positions they have.
 *
 * ```text
 *   slot    0     1     2     3     4     5    6     7 …
 *   row 0   The   quick brown fox jumped over  the   ·     padding 0
 *   row 1   ░     ░     ░     Never have I     ever  ·     padding 3
 *                                                    ↑ length 7, the next token's slot
 * ```
 */

import * as tf from "@tensorflow/tfjs";
import type { CacheTensors } from "../gpt2/cache_view.ts";
import type { Ops } from "../backend/ops.ts";
import { plainOps } from "../backend/plain.ts";
import type { Parallelism } from "../backend/types.ts";
import type { GPT2Config } from "../gpt2/config.ts";
import { Lifetime } from "../util/lifetime.ts";

/** Slots come in multiples of this: growing is rare, and little is attended to in vain. */
const BUCKET = 16;

/** Keys and values of a batch; owns its tensors. */
export class KvCache {
  /** Slots in use, padding included. */
  length = 0;
  /** The rows of the batch, in groups that go through the model side by side. */
  readonly lanes: readonly Lane[];

  private constructor(
    /** How many of each row's first slots are padding. */
    readonly padding: readonly number[],
    /** How the rows are spread over the processor. */
    readonly parallelism: Parallelism,
    config: GPT2Config,
    headGroups: readonly number[],
    capacity: number,
    ops: Pick<Ops, "emptyCaches">,
  ) {
    const count = Math.min(parallelism.lanes, padding.length),
      start = (i: number) => Math.floor(padding.length * i / count);
    this.lanes = Array.from(
      { length: count },
      (_, i) => new Lane(config, headGroups, start(i), padding.slice(start(i), start(i + 1)), capacity, ops),
    );
  }

  /**
   * An empty cache with room for `capacity` tokens in each of `padding.length` rows. It grows when it must. `headGroups`
   * says how many heads are in each of the model's groups, `ops` makes the tensors.
   */
  static allocate(
    config: GPT2Config,
    padding: readonly number[],
    capacity: number,
    {
      parallelism = { lanes: 1, threads: navigator.hardwareConcurrency },
      headGroups = [config.n_head],
      ops = plainOps,
    }: {
      parallelism?: Parallelism;
      headGroups?: readonly number[];
      ops?: Pick<Ops, "emptyCaches">;
    } = {},
  ): KvCache {
    return new KvCache(padding, parallelism, config, headGroups, roundUp(capacity), ops);
  }

  /** The memory that a cache takes: 2 (keys, values) × layers × rows × slots × D × 4 bytes. */
  static bytes({ n_layer, n_embd }: GPT2Config, batchSize: number, capacity: number): number {
    return 2 * n_layer * batchSize * roundUp(capacity) * n_embd * Float32Array.BYTES_PER_ELEMENT;
  }

  /** B. */
  get batchSize(): number {
    return this.padding.length;
  }

  /** Layers of the model. */
  get layers(): number {
    return this.lanes[0].layers;
  }

  /** S: slots that there is memory for. */
  get capacity(): number {
    return this.lanes[0].tensors.slots.size;
  }

  /**
   * Copies of a row's keys and values in one layer, for a look: each [tokens, D], the heads side by side, without padding.
   *
   * @example
   * ```ts
   * import assert from "node:assert/strict";
   * import { AutoModelForCausalLM, AutoTokenizer, generateTokenKvCaching } from "../mod.ts";
   *
   * using model = await AutoModelForCausalLM.fromPretrained("models/small");
   * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
   * const { cache } = await generateTokenKvCaching(model, tokenizer("What comes up must"));
   * const { keys, values } = await cache.read(0, 3);
   * assert.deepEqual([keys.length, values[3].length], [4, model.config.n_embd]);
   * cache[Symbol.dispose]();
   * ```
   */
  async read(row: number, layer: number): Promise<{ keys: number[][]; values: number[][] }> {
    const lane = this.lanes.findLast(({ start }) => start <= row);
    if (!lane || !(row < this.batchSize && layer >= 0 && layer < this.layers)) {
      throw new RangeError(
        `Cannot read layer ${layer} of row ${row}: the cache has ${this.layers} layers and ${this.batchSize} rows.`,
      );
    }
    using _ = this.lifetime.use();
    return await lane.read(row - lane.start, layer, this.length);
  }

  /** Makes room for `count` more tokens. */
  reserve(count: number): void {
    const needed = roundUp(this.length + count);
    if (needed > this.capacity) { for (const lane of this.lanes) lane.grow(needed); }
  }

  /** Who uses the memory, until when. */
  readonly lifetime = new Lifetime("this KV cache", () => {
    for (const lane of this.lanes) lane[Symbol.dispose]();
  });

  /** Frees the memory, once the step that is under way has ended; every later one is refused. */
  [Symbol.dispose](): void {
    this.lifetime.end();
  }
}

/** Some rows of a batch: their part of the cache. */
export class Lane {
  #tensors: CacheTensors;

  /** Empty, with room for `capacity` tokens. */
  constructor(
    config: GPT2Config,
    private readonly headGroups: readonly number[],
    /** The first of its rows. */
    readonly start: number,
    /** How many of each row's first slots are padding. */
    readonly padding: readonly number[],
    capacity: number,
    ops: Pick<Ops, "emptyCaches">,
  ) {
    const { n_layer, n_head, n_embd } = config;
    const perGroup = headGroups.map((heads) =>
      ops.emptyCaches([padding.length, heads, capacity, n_embd / n_head], 2 * n_layer)
    );
    const layers = (first: number) =>
      Array.from({ length: n_layer }, (_, i) => perGroup.map((caches) => caches[first + i])).flat();
    this.#tensors = { keys: layers(0), values: layers(n_layer), ...this.#index(capacity) };
  }

  /** What a step of the model takes. They stay the cache's. */
  get tensors(): CacheTensors {
    return this.#tensors;
  }

  /** Layers of the model. */
  get layers(): number {
    return this.#tensors.keys.length / this.headGroups.length;
  }

  /** What {@link KvCache.read} reads, of one of this lane's rows. */
  async read(row: number, layer: number, length: number): Promise<{ keys: number[][]; values: number[][] }> {
    const groups = this.headGroups.length, first = this.padding[row], count = length - first;
    const sideBySide = (tensors: readonly tf.Tensor4D[]) =>
      tf.tidy(() => {
        const parts = tensors.slice(layer * groups, (layer + 1) * groups).map((part) => {
          const tokens = tf.slice(part, [row, 0, first, 0], [1, -1, count, -1]); // [1, heads, T, D/H]
          return tf.reshape(tf.transpose(tokens, [0, 2, 1, 3]), [count, -1]);
        });
        return tf.concat(parts, 1) as tf.Tensor2D; // [T, D]
      });
    const keys = sideBySide(this.#tensors.keys), values = sideBySide(this.#tensors.values);
    try {
      return { keys: await keys.array(), values: await values.array() };
    } finally {
      tf.dispose([keys, values]);
    }
  }

  /** Of something that the batch has for each row, the part for these. */
  rowsOf<T>(all: readonly T[]): T[] {
    return all.slice(this.start, this.start + this.padding.length);
  }

  /** [B, T]: the positions of `count` tokens from slot `first` on, counted from each row's first real one. */
  positionIds(first: number, count: number): number[][] {
    return this.padding.map((padding) => Array.from({ length: count }, (_, i) => Math.max(0, first + i - padding)) // padding looks up position 0
    );
  }

  /** Makes room for `capacity` tokens. */
  grow(capacity: number): void {
    const { keys, values, ...indices } = this.#tensors;
    const grow = (old: tf.Tensor4D) => {
      const grown = tf.pad(old, [[0, 0], [0, 0], [0, capacity - old.shape[2]], [0, 0]]);
      old.dispose();
      return grown;
    };
    this.#tensors = { keys: keys.map(grow), values: values.map(grow), ...this.#index(capacity) };
    tf.dispose(Object.values(indices).flat());
  }

  /** Takes over the tensors that a step made, where the backend does not write in place. */
  adopt(written: Pick<CacheTensors, "keys" | "values">): void {
    tf.dispose([...this.#tensors.keys, ...this.#tensors.values]);
    this.#tensors = { ...this.#tensors, ...written };
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    const { keys, values, padding, slots, rowStarts } = this.#tensors;
    tf.dispose([...keys, ...values, padding, slots, ...rowStarts]);
  }

  #index(capacity: number): Pick<CacheTensors, "padding" | "slots" | "rowStarts"> {
    const startsOf = (heads: number) => {
      const count = this.padding.length * heads;
      return tf.tensor3d(Int32Array.from({ length: count }, (_, i) => i * capacity), [count, 1, 1], "int32");
    };
    return {
      padding: tf.tensor4d([...this.padding], [this.padding.length, 1, 1, 1], "int32"),
      slots: tf.range(0, capacity, 1, "int32"),
      rowStarts: this.headGroups.map(startsOf),
    };
  }
}

function roundUp(slots: number): number {
  return Math.ceil(slots / BUCKET) * BUCKET;
}
