/** Part of the KV cache: rows that have the same number of slots, and so attend together, as one rectangle. */

import * as tf from "@tensorflow/tfjs";
import type { BucketInputs, Caches, CacheShape, Ops } from "../backend/ops.ts";
import type { CachePolicy } from "../backend/types.ts";

/** What a row's keys and values look like. */
export interface CacheLayout extends CachePolicy, Omit<CacheShape, "heads"> {
  /** How many heads are in each group of a layer. */
  readonly headGroups: readonly number[];
  /** Makes the tensors. */
  readonly ops: Pick<Ops, "createCaches" | "keepForSteps">;
}

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
  /** By group of heads. */
  readonly #caches: Caches[];
  #slots: number;
  #room: number;
  /** What a step takes besides, until rows or slots change. */
  #numbers?: Omit<Tensors, "caches">;

  /** Empty, with room for `rows` rows, all of them in one phase. */
  constructor(private readonly layout: CacheLayout, slots: number, rows: number, public phase: Phase = "decode") {
    this.#slots = slots;
    this.#room = layout.roomFor?.(rows) ?? rows;
    const { ops, headGroups } = layout;
    this.#caches = headGroups.map((heads) => ops.createCaches({ ...layout, heads }, this.#room, slots));
  }

  /** S. */
  get slots(): number {
    return this.#slots;
  }

  /** R, with those that only fill a size that the backend likes. */
  get tensorRows(): number {
    return this.layout.roomFor ? this.#room : this.rows.length;
  }

  /** What a step takes. They stay the bucket's. */
  get tensors(): Tensors {
    return { ...this.#numbers ??= this.#makeNumbers(), caches: this.#caches.map(({ tensors }) => tensors) };
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
    this.#copyIn(source, moved.map((row) => ({ row, length: row.length })));
    for (const row of moved) {
      this.rows.push(row);
      row.bucket = this;
    }
    source.remove(moved);
  }

  /** A new row with the first `length` tokens of one that has as many slots at most. */
  fork(row: Row, length: number): Row {
    this.#copyIn(row.bucket, [{ row, length }]);
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
      const moves = holes.map((to, i) => ({ from: fillers[i], to, length: this.rows[fillers[i]].length }));
      for (const caches of this.#caches) caches.copy(caches, moves);
      for (const { from, to } of moves) this.rows[to] = this.rows[from];
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
    for (const caches of this.#caches) caches.trim(this.#lengths);
  }

  /** Makes room for more slots in every row. */
  grow(slots: number): void {
    const { layout: { roomFor }, rows } = this;
    this.#resize(roomFor ? this.#room : Math.max(rows.length, Math.floor(this.#room * this.#slots / slots)), slots);
  }

  /** Takes over the caches that a step made, by group, where the backend does not write in place. */
  adopt(made: readonly (readonly tf.Tensor4D[])[]): void {
    made.forEach((tensors, group) => this.#caches[group].adopt!(tensors));
  }

  /** Bytes of its keys and values. */
  get bytes(): number {
    return this.#caches.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Copies of a row's keys and values in one layer, for each group of heads [heads, tokens, D/H]. */
  read(row: Row, layer: number): { keys: tf.Tensor3D; values: tf.Tensor3D }[] {
    const place = this.rows.indexOf(row);
    return this.#caches.map((caches) => ({
      keys: caches.read(2 * layer, place, row.length),
      values: caches.read(2 * layer + 1, place, row.length),
    }));
  }

  /** Gives up the memory. */
  [Symbol.dispose](): void {
    this.#changed();
    for (const caches of this.#caches.splice(0)) caches.dispose();
  }

  /** Copies rows behind those that are here. */
  #copyIn(source: Bucket, rows: readonly { row: Row; length: number }[]): void {
    const moves = rows.map(({ row, length }, i) => ({
      from: source.rows.indexOf(row),
      to: this.rows.length + i,
      length,
    }));
    this.#makeRoom(this.rows.length + rows.length);
    this.#caches.forEach((caches, group) => caches.copy(source.#caches[group], moves));
    this.#changed();
  }

  #makeRoom(rows: number): void {
    if (rows <= this.#room) return;
    this.#resize(this.layout.roomFor?.(rows) ?? Math.max(rows, Math.ceil(1.5 * this.#room)), this.#slots);
  }

  #resize(room: number, slots: number): void {
    for (const caches of this.#caches) caches.resize(room, slots, this.#lengths);
    [this.#room, this.#slots] = [room, slots];
    this.#changed();
  }

  get #lengths(): number[] {
    return this.rows.map(({ length }) => length);
  }

  #makeNumbers(): Omit<Tensors, "caches"> {
    const { ops, headGroups } = this.layout, R = this.tensorRows, S = this.#slots;
    const kept = <T extends tf.Tensor>(x: T) => ops.keepForSteps?.(x) ?? x;
    const starts = (heads: number) =>
      kept(tf.tensor2d(Int32Array.from({ length: R * heads }, (_, i) => i * S), [R, heads], "int32"));
    return {
      slots: kept(tf.range(0, S, 1, "int32")),
      rowStarts: headGroups.map(starts),
    };
  }

  /** Frees what {@link Bucket.tensors} made. */
  #changed(): void {
    if (this.#numbers) tf.dispose([this.#numbers.slots, ...this.#numbers.rowStarts]);
    this.#numbers = undefined;
  }
}
