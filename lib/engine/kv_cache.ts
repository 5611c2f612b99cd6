/**
 * The batched KV cache: the keys and values of every token so far, for each row of a batch.
 *
 * A row has a length of its own, and its token p lies in slot p: there is no padding. Rows come and go, and each costs only
 * itself. Attention takes rows together, so those of similar length share a bucket, a rectangle of rows × slots:
 *
 * ```text
 *   slot    0     1     2     3     4     5    6     7 …
 *   row 0   The   quick brown fox jumped over  the   ·     length 7
 *   row 1   Never have  I     ever  ·                      length 4
 *                                   ↑ the next token's slot and position
 * ```
 *
 * Lanes are groups of rows that go through the model side by side, each with its own buckets; a row stays in its lane.
 */

import * as tf from "@tensorflow/tfjs";
import { onBackend } from "../backend/current.ts";
import type { Backend, Parallelism } from "../backend/types.ts";
import type { GPT2Config } from "../gpt2/config.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { Lifetime } from "../util/lifetime.ts";
import { Bucket, type CacheLayout, type Phase, type Row } from "./bucket.ts";
import { partition } from "./partition.ts";
import { multipleOf16 } from "../backend/plain.ts";

/**
 * Some rows of a batch: they go through the model together.
 *
 * @internal
 */
export interface Lane {
  readonly buckets: Bucket[];
}

/**
 * How many rows to admit, and how large.
 *
 * @internal
 */
export interface Admission {
  /** For each new row, how many tokens it is going to have soon. The cache grows when there are more. */
  slots: readonly number[];
  /** How many tokens of zeros each row begins with: for timing, which does not depend on what a cache holds. Default 0. */
  length?: number;
  /** What they are going to do: rows of different phases never share a bucket. Default `decode`. */
  phase?: Phase;
}

const FLOAT_BYTES = Float32Array.BYTES_PER_ELEMENT;

/** Keys and values of a batch; owns its tensors. */
export class KvCache {
  /** The rows, in the order in which they came. */
  readonly rows: Row[] = [];
  /** Groups of rows that go through the model side by side. */
  readonly lanes: readonly Lane[];
  readonly #layout: CacheLayout;
  readonly #backend: Backend;

  /** An empty cache for a model, whose rows are to be spread over the processor like this. */
  constructor(model: GPT2, readonly parallelism: Parallelism = { lanes: 1, threads: model.backend.threads }) {
    const { config: { n_layer, n_embd, n_head }, headGroups, backend, cachedBytes } = model;
    const { ops, cachePolicy } = backend;
    this.#backend = backend;
    const spare = cachePolicy.keepsSpare ? spareOf(model) : [];
    this.#layout = { layers: n_layer, headGroups, headSize: n_embd / n_head, cachedBytes, spare, ops, ...cachePolicy };
    this.lifetime = new Lifetime("this KV cache", () => {
      this.#empty?.[Symbol.dispose]();
      for (const { buckets } of this.lanes) for (const bucket of buckets.splice(0)) bucket[Symbol.dispose]();
      if (spares.get(model) !== spare) tf.dispose(spare.splice(0));
    });
    this.lanes = Array.from({ length: parallelism.lanes }, () => ({ buckets: [] }));
  }

  /**
   * The memory that rows with so many slots each take: 2 (keys, values) × layers × rows × slots × D numbers, of so many bytes each:
   * see {@link GPT2.cachedBytes}.
   */
  static bytes({ n_layer, n_embd }: GPT2Config, rows: number, slots: number, cachedBytes = FLOAT_BYTES): number {
    return 2 * n_layer * rows * multipleOf16(slots) * n_embd * cachedBytes;
  }

  /** The memory that it takes now. */
  get bytes(): number {
    return this.#bytesInUse +
      this.#layout.spare.reduce((sum, { size }) => sum + size * FLOAT_BYTES, 0);
  }

  get #bytesInUse(): number {
    return this.#buckets.reduce((sum, bucket) => sum + bucket.bytes, 0);
  }

  /** Layers of the model. */
  get layers(): number {
    return this.#layout.layers;
  }

  /** Tokens of each row, in the order of {@link KvCache.rows}. */
  get lengths(): number[] {
    return this.rows.map(({ length }) => length);
  }

  /** A bucket without rows, which fills up a step that is captured for more buckets than there are. */
  get emptyBucket(): Bucket {
    return this.#empty ??= onBackend(this.#backend, () => new Bucket(this.#layout, this.#layout.slotsFor(1), 0));
  }
  #empty?: Bucket;

  get #buckets(): Bucket[] {
    return this.lanes.flatMap(({ buckets }) => buckets);
  }

  /** Of each lane. */
  get #rowCounts(): number[] {
    return this.lanes.map(({ buckets }) => buckets.reduce((sum, { rows }) => sum + rows.length, 0));
  }

  /** Adds rows, each to the lane that has fewest. */
  admit({ slots, length = 0, phase = "decode" }: Admission): Row[] {
    using _ = this.lifetime.use();
    const counts = this.#rowCounts;
    const shares = this.lanes.map((): number[] => []); // which of the new rows each lane gets
    for (const i of slots.keys()) {
      const lane = counts.indexOf(Math.min(...counts));
      counts[lane]++;
      shares[lane].push(i);
    }
    const admitted: Row[] = [];
    for (const [lane, share] of shares.entries()) {
      const needs = share.map((i) => this.#layout.slotsFor(slots[i]));
      for (const part of partition(needs, this.#layout.bucketCost)) {
        const slots = part.reduce((most, j) => Math.max(most, needs[j]), 0);
        const bucket = onBackend(this.#backend, () => new Bucket(this.#layout, slots, part.length, phase));
        for (const j of part) admitted[share[j]] = bucket.add(length);
        this.lanes[lane].buckets.push(bucket);
      }
    }
    for (const row of admitted) this.rows.push(row);
    return admitted;
  }

  /** Removes a row and forgets what it holds. */
  release(row: Row): void {
    using _ = this.lifetime.use();
    const { bucket } = row;
    this.rows.splice(this.#indexOf(row), 1);
    onBackend(this.#backend, () => {
      bucket.remove([row]);
      this.#tidy(this.#laneOf(bucket));
    });
  }

  /** Forgets a row's tokens from `length` on: the next one comes there. */
  rewind(row: Row, length: number): void {
    using _ = this.lifetime.use();
    this.#indexOf(row);
    if (!(Number.isInteger(length) && length >= 0 && length <= row.length)) {
      throw new RangeError(
        `Cannot rewind a row of ${row.length} tokens to ${length}: use a whole number up to its length.`,
      );
    }
    row.length = length;
  }

  /** Puts rows into a phase; see {@link Admission}. */
  setPhase(rows: readonly Row[], phase: Phase): void {
    using _ = this.lifetime.use();
    onBackend(this.#backend, () => {
      for (const lane of this.lanes) {
        for (const bucket of [...lane.buckets]) {
          const moved = bucket.phase === phase ? [] : rows.filter((row) => row.bucket === bucket);
          if (moved.length === bucket.rows.length) bucket.phase = phase;
          else if (moved.length) this.#bucketFor(lane, bucket.slots, phase, moved.length).moveFrom(bucket, moved);
        }
        this.#tidy(lane);
      }
    });
  }

  /** Gives back memory that no row is in, which is kept for rows to come. */
  trim(): void {
    onBackend(this.#backend, () => this.#buckets.forEach((bucket) => bucket.trim()));
    tf.dispose(this.#layout.spare.splice(0));
  }

  /** A new row that begins with the first `length` tokens of another, in the lane that has fewest. */
  fork(row: Row, length = row.length, phase = row.bucket.phase): Row {
    using _ = this.lifetime.use();
    this.#indexOf(row);
    if (!(Number.isInteger(length) && length >= 0 && length <= row.length)) {
      throw new RangeError(
        `Cannot fork ${length} tokens of a row that has ${row.length}: use a whole number up to its length.`,
      );
    }
    const { bucket } = row, counts = this.#rowCounts, home = this.lanes.indexOf(this.#laneOf(bucket));
    const least = Math.min(...counts), lane = this.lanes[counts[home] === least ? home : counts.indexOf(least)];
    const copy = onBackend(this.#backend, () => {
      const stays = lane.buckets.includes(bucket) && phase === bucket.phase;
      return (stays ? bucket : this.#bucketFor(lane, bucket.slots, phase, 1)).fork(row, length);
    });
    this.rows.push(copy);
    return copy;
  }

  /** Runs a step on it. Throws if another one is under way: the two would write to the same slots. */
  async exclusively<T>(step: () => Promise<T>): Promise<T> {
    if (this.#busy) {
      throw new Error("Cannot run two steps on one cache at once: await the first, or give each its own cache.");
    }
    using _ = this.lifetime.use();
    this.#busy = true;
    try {
      return await step();
    } finally {
      this.#busy = false;
    }
  }
  #busy = false;

  /** Makes room for `counts[i]` more tokens in each of some rows. Only rows that get into another bucket are moved. */
  reserve(rows: readonly Row[], counts: readonly number[]): void {
    using _ = this.lifetime.use();
    onBackend(this.#backend, () => {
      for (const lane of this.lanes) {
        for (const bucket of [...lane.buckets]) {
          const short = rows.flatMap((row, i) => {
            const need = this.#layout.slotsFor(row.length + counts[i]);
            return row.bucket === bucket && need > bucket.slots ? [{ row, need }] : [];
          });
          if (short.length) {
            const slots = short.reduce((most, { need }) => Math.max(most, need), 0);
            this.#enlarge(lane, bucket, short.map(({ row }) => row), slots);
          }
        }
        this.#tidy(lane);
      }
    });
  }

  /**
   * Copies of a row's keys and values in one layer, for a look: each [tokens, D], the heads side by side. `row` is its place
   * in {@link KvCache.rows}.
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
    if (!(this.rows[row] && layer >= 0 && layer < this.layers)) {
      throw new RangeError(
        `Cannot read layer ${layer} of row ${row}: the cache has ${this.layers} layers and ${this.rows.length} rows.`,
      );
    }
    using _ = this.lifetime.use();
    const { bucket } = this.rows[row];
    const sideBySide = (groups: tf.Tensor3D[]) => { // each [heads, T, D/H] -> [T, D]
      const heads = tf.concat(groups, 0), [, T] = heads.shape;
      return tf.reshape(tf.transpose(heads, [1, 0, 2]), [T, -1]) as tf.Tensor2D;
    };
    const { keys, values } = onBackend(this.#backend, () =>
      tf.tidy(() => {
        const groups = bucket.read(this.rows[row], layer);
        return {
          keys: sideBySide(groups.map(({ keys }) => keys)),
          values: sideBySide(groups.map(({ values }) => values)),
        };
      }));
    try {
      return { keys: await keys.array(), values: await values.array() };
    } finally {
      tf.dispose([keys, values]);
    }
  }

  /**
   * Who uses the memory, until when.
   *
   * @internal
   */
  readonly lifetime: Lifetime;

  /** Frees the memory, once the step that is under way has ended; whatever is asked of the cache later is refused. */
  [Symbol.dispose](): void {
    this.lifetime.end();
  }

  /** Some of a bucket's rows need more slots: either all of them get these, or the rows move to where there are enough. */
  #enlarge(lane: Lane, bucket: Bucket, short: readonly Row[], slots: number): void {
    const { bucketCost } = this.#layout, staying = bucket.rows.length - short.length;
    const larger = nextLarger(lane, slots, bucket.phase);
    const growing = staying * (slots - bucket.slots); // slots attended to in vain
    const joining = larger ? short.length * (larger.slots - slots) : Infinity;
    if (!staying && !larger || growing <= Math.min(joining, bucketCost)) return bucket.grow(slots);
    this.#bucketFor(lane, slots, bucket.phase, short.length).moveFrom(bucket, short);
  }

  /** Where so many rows can go that need so many slots: a bucket that there is, unless one of their own pays. */
  #bucketFor(lane: Lane, slots: number, phase: Phase, rows: number): Bucket {
    const larger = phase === "ended" ? undefined : nextLarger(lane, slots, phase);
    if (larger && rows * (larger.slots - slots) <= this.#layout.bucketCost) return larger;
    const bucket = new Bucket(this.#layout, slots, rows, phase);
    lane.buckets.push(bucket);
    return bucket;
  }

  /** Frees empty buckets, and joins those that are not worth being apart. Nothing attends to rows that have ended. */
  #tidy(lane: Lane): void {
    const { buckets } = lane;
    for (const bucket of buckets.filter(({ rows }) => rows.length === 0)) this.#drop(lane, bucket);
    for (const bucket of buckets.filter(({ phase }) => phase !== "ended").sort((a, b) => a.slots - b.slots)) {
      const larger = nextLarger(lane, bucket.slots, bucket.phase, bucket);
      if (!larger || (larger.slots - bucket.slots) * bucket.rows.length > this.#layout.bucketCost) continue;
      larger.moveFrom(bucket, [...bucket.rows]);
      this.#drop(lane, bucket);
    }
    const { spare } = this.#layout, share = buckets.length > 1 ? 0.5 : 0; // one alone grows, and needs nothing smaller again
    while (spare.length && this.bytes > (1 + share) * this.#bytesInUse) spare.shift()!.dispose();
  }

  #drop({ buckets }: Lane, bucket: Bucket): void {
    buckets.splice(buckets.indexOf(bucket), 1);
    bucket[Symbol.dispose]();
  }

  #laneOf(bucket: Bucket): Lane {
    return this.lanes.find(({ buckets }) => buckets.includes(bucket))!;
  }

  #indexOf(row: Row): number {
    const index = this.rows.indexOf(row);
    if (index < 0) throw new RangeError("Cannot use this row: the cache does not have it, or no longer.");
    return index;
  }
}

/** The least of the buckets of a phase, but for one, that have so many slots. */
function nextLarger({ buckets }: Lane, slots: number, phase: Phase, except?: Bucket): Bucket | undefined {
  return buckets.filter((one) => one !== except && one.phase === phase && one.slots >= slots)
    .sort((a, b) => a.slots - b.slots)[0];
}

/** Where the backend keeps it: memory that the caches of a model have left to its next ones. It is freed with the model. */
const spares = new WeakMap<GPT2, tf.Tensor[]>();

function spareOf(model: GPT2): tf.Tensor[] {
  let spare = spares.get(model);
  if (!spare) {
    const list: tf.Tensor[] = spare = [];
    spares.set(model, list);
    model.own({ dispose: () => (spares.delete(model), tf.dispose(list.splice(0))) });
  }
  return spare;
}
