/** Part of the KV cache: rows that have the same number of slots, and so attend together, as one rectangle. */

import * as tf from "@tensorflow/tfjs";
import type { BucketInputs, Ops } from "../backend/ops.ts";
import type { CachePolicy } from "../backend/types.ts";
import type { SpareCaches } from "./spare_caches.ts";

/** What a row's keys and values look like. */
export interface CacheLayout extends CachePolicy {
  /** Layers of the model. */
  readonly layers: number;
  /** How many heads are in each group of a layer. */
  readonly headGroups: readonly number[];
  /** D/H. */
  readonly headSize: number;
  /** Makes the tensors. */
  readonly ops: CacheOps;
  /** Where they are taken from and given to, if it pays to use them again. */
  readonly spare?: SpareCaches;
}

/** What caches ask of a backend. */
export type CacheOps = Pick<
  Ops,
  "writesInPlace" | "emptyCaches" | "resizeCache" | "copyRows" | "keepForSteps" | "readCache" | "firstRows"
>;

/**
 * What a row is doing: being fed its prompt, generating, or waiting for somebody whose prompt begins like its text. Rows of
 * different phases lie in different buckets, because a step feeds them differently.
 */
export type Phase = "prefill" | "decode" | "ended";

/** One sequence of tokens, whose keys and values are in the cache: token p in slot p. */
export interface Row {
  /** Tokens fed so far; the next one's position and slot. */
  length: number;
  /** Where its keys and values are. */
  bucket: Bucket;
}

/** The cache's tensors during a step, of the rows in use. */
type Tensors = Omit<BucketInputs, "positions" | "rectangle">;

/**
 * Rows with `slots` slots each; owns its tensors.
 *
 * @internal
 */
export class Bucket {
  /** In the order in which they lie in the tensors. */
  readonly rows: Row[] = [];
  /** For each layer and in it for each group, [room, heads, S, D/H]. */
  #keys: tf.Tensor4D[];
  #values: tf.Tensor4D[];
  #slots: number;
  #room: number;
  /** What a step takes, until rows or slots change. */
  #inUse?: Tensors;

  /** Empty, with room for `rows` rows, all of them in one phase. */
  constructor(private readonly layout: CacheLayout, slots: number, rows: number, public phase: Phase = "decode") {
    const { ops, layers, headGroups, headSize } = layout;
    this.#slots = slots;
    this.#room = layout.roomFor?.(rows) ?? rows;
    const byGroup = headGroups.map((heads) => {
      const shape: tf.Tensor4D["shape"] = [this.#room, heads, slots, headSize];
      return layout.spare?.take(shape, 2 * layers) ?? ops.emptyCaches(shape, 2 * layers);
    });
    const half = (first: number) =>
      Array.from({ length: layers }, (_, i) => byGroup.map((caches) => caches[first + i])).flat();
    this.#keys = half(0);
    this.#values = half(layers);
  }

  /** S. */
  get slots(): number {
    return this.#slots;
  }

  /** R, with those that only fill a size that the backend likes. */
  get tensorRows(): number {
    return this.tensors.rowStarts[0].shape[0];
  }

  /** What a step takes. They stay the bucket's. */
  get tensors(): Tensors {
    return this.#inUse ??= this.#makeInUse();
  }

  /** Takes in a new, empty row. */
  add(length = 0): Row {
    const row = { length, bucket: this };
    this.#makeRoom(this.rows.length + 1);
    this.rows.push(row);
    this.#changed();
    return row;
  }

  /** Takes in rows of `source`, which loses them. That may not be this one, and has as many slots at most. */
  moveFrom(source: Bucket, moved: readonly Row[]): void {
    this.#copyIn(source, moved);
    this.rows.push(...moved);
    for (const row of moved) row.bucket = this;
    source.remove(moved);
  }

  /** A new row with the first `length` tokens of one that has as many slots at most. */
  fork(row: Row, length: number): Row {
    this.#copyIn(row.bucket, [row]);
    const copy = { length, bucket: this };
    this.rows.push(copy);
    return copy;
  }

  /** Forgets rows: the last ones take their places. */
  remove(gone: readonly Row[]): void {
    const leaving = new Set(gone), staying = this.rows.length - leaving.size;
    const holes: number[] = [], fillers: number[] = [];
    this.rows.forEach((row, i) => {
      if (i < staying && leaving.has(row)) holes.push(i);
      if (i >= staying && !leaving.has(row)) fillers.push(i);
    });
    if (holes.length) {
      this.#change((cache) => this.layout.ops.copyRows(cache, holes, cache, fillers));
      holes.forEach((hole, i) => this.rows[hole] = this.rows[fillers[i]]);
    }
    this.rows.length = staying;
    const { roomFor } = this.layout, room = roomFor?.(staying) ?? staying;
    if (staying && (roomFor ? room < this.#room : 4 * room <= this.#room)) this.#resize(room, this.#slots);
    this.#changed();
  }

  /** Gives back room that no row is in. */
  trim(): void {
    const room = this.layout.roomFor?.(this.rows.length) ?? this.rows.length;
    if (room < this.#room) this.#resize(room, this.#slots);
  }

  /** Makes room for more slots in every row. */
  grow(slots: number): void {
    this.#resize(this.#room, slots);
    this.#changed();
  }

  /** Takes over the caches that a step made, where the backend does not write in place. */
  adopt({ keys, values }: { keys: tf.Tensor4D[]; values: tf.Tensor4D[] }): void {
    tf.dispose([...this.#keys, ...this.#values]);
    [this.#keys, this.#values] = [keys, values];
    if (this.#inUse) this.#inUse = { ...this.#inUse, keys, values };
  }

  /** Bytes of its keys and values. */
  get bytes(): number {
    return [...this.#keys, ...this.#values].reduce((sum, { size }) => sum + size * Float32Array.BYTES_PER_ELEMENT, 0);
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#changed();
    const caches = [...this.#keys, ...this.#values];
    if (this.layout.spare) this.layout.spare.give(caches);
    else tf.dispose(caches);
    this.#keys = this.#values = [];
  }

  /** Copies rows behind those that are here. */
  #copyIn(source: Bucket, rows: readonly Row[]): void {
    const from = rows.map((row) => source.rows.indexOf(row)), to = from.map((_, i) => this.rows.length + i);
    this.#makeRoom(this.rows.length + rows.length);
    this.#change((cache, half, i) => this.layout.ops.copyRows(cache, to, source.#half(half)[i], from));
    this.#changed();
  }

  #makeRoom(rows: number): void {
    if (rows <= this.#room) return;
    this.#resize(this.layout.roomFor?.(rows) ?? Math.max(rows, Math.ceil(1.5 * this.#room)), this.#slots);
  }

  #resize(room: number, slots: number): void {
    this.#change((cache) => this.layout.ops.resizeCache(cache, room, slots));
    [this.#room, this.#slots] = [room, slots];
  }

  /** Puts what `make` makes of each cache into its place. */
  #change(make: (cache: tf.Tensor4D, half: "keys" | "values", i: number) => tf.Tensor4D): void {
    this.#changed();
    for (const half of ["keys", "values"] as const) {
      const caches = this.#half(half);
      caches.forEach((cache, i) => {
        caches[i] = make(cache, half, i);
        if (caches[i] !== cache) cache.dispose();
      });
    }
  }

  #half(half: "keys" | "values"): tf.Tensor4D[] {
    return half === "keys" ? this.#keys : this.#values;
  }

  #makeInUse(): Tensors {
    const { ops, headGroups, roomFor } = this.layout, S = this.#slots;
    const R = roomFor ? this.#room : this.rows.length;
    const kept = <T extends tf.Tensor>(x: T) => ops.keepForSteps?.(x) ?? x;
    const starts = (heads: number) =>
      kept(tf.tensor2d(Int32Array.from({ length: R * heads }, (_, i) => i * S), [R, heads], "int32"));
    const firstRows = (caches: tf.Tensor4D[]) =>
      R < this.#room ? caches.map((cache) => ops.firstRows(cache, R)) : caches;
    return {
      slots: kept(tf.range(0, S, 1, "int32")),
      rowStarts: headGroups.map(starts),
      keys: firstRows(this.#keys),
      values: firstRows(this.#values),
    };
  }

  /** Frees what {@link Bucket.tensors} made. */
  #changed(): void {
    if (!this.#inUse) return;
    const { slots, rowStarts, keys, values } = this.#inUse;
    tf.dispose([slots, ...rowStarts]);
    if (keys !== this.#keys) tf.dispose([...keys, ...values]);
    this.#inUse = undefined;
  }
}
