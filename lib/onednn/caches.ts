/** The keys and values of a bucket's rows in memory of their own: [2 · layers, R, S, D], a token's heads side by side. */

import * as tf from "@tensorflow/tfjs";
import type { Caches, CacheShape, RowCopy } from "../backend/ops.ts";
import { HostMemory } from "./host_memory.ts";
import type { CacheMemory } from "./program.ts";

const FLOAT = Float32Array.BYTES_PER_ELEMENT;

/** What is behind the tensors of caches. */
export class CacheRegister {
  readonly #places = new WeakMap<object, { memory: CacheMemory; cache: number }>();
  #count = 0;

  /** Tensors that stand for parts of a cache: none of them has values that tfjs knows. */
  add(parts: readonly CacheMemory[], shape: number[]): tf.Tensor[] {
    const cache = this.#count++;
    return parts.map((memory) => {
      const dataId = {};
      this.#places.set(dataId, { memory, cache });
      return tf.engine().makeTensorFromDataId(dataId, shape, "float32");
    });
  }

  /** What is behind one. */
  of({ dataId }: tf.Tensor): { memory: CacheMemory; cache: number } {
    return this.#places.get(dataId)!;
  }
}

/** Where a cache's numbers are. */
interface Layout {
  readonly memory: HostMemory;
  readonly rows: number;
  readonly slots: number;
}

/** See {@link Caches}. */
export class HostCaches implements Caches {
  /** Keys of the first layer, its values, keys of the second, … */
  tensors!: readonly tf.Tensor[];
  #layout!: Layout;

  /** Empty ones. */
  constructor(
    private readonly register: CacheRegister,
    private readonly shape: CacheShape,
    rows: number,
    slots: number,
  ) {
    this.#make(rows, slots);
  }

  /** Bytes of the memory. */
  get bytes(): number {
    return this.#layout.memory.byteLength;
  }

  /** See {@link Caches.resize}. */
  resize(rows: number, slots: number, lengths: readonly number[]): void {
    const before = this.#layout;
    if (rows === before.rows && slots === before.slots) return;
    tf.dispose([...this.tensors]);
    this.#make(rows, slots);
    this.#copy(before, lengths.slice(0, rows).map((length, row) => ({ from: row, to: row, length })));
    before.memory.free();
  }

  /** See {@link Caches.copy}. */
  copy(source: HostCaches, moves: readonly RowCopy[]): void {
    this.#copy(source.#layout, moves);
  }

  /** See {@link Caches.read}. */
  read(cache: number, row: number, length: number): tf.Tensor3D {
    const { heads, headSize } = this.shape,
      { memory, rows, slots } = this.#layout,
      start = (cache * rows + row) * slots;
    const tokens = memory.floats.slice(start * this.#width, (start + length) * this.#width);
    return tf.tidy(() => tf.transpose(tf.tensor3d(tokens, [length, heads, headSize]), [1, 0, 2]));
  }

  /** Nothing: it never has more than it was asked for. */
  trim(): void {}

  /** Frees the memory. */
  dispose(): void {
    tf.dispose([...this.tensors]);
    this.#layout.memory.free();
  }

  get #width(): number {
    return this.shape.heads * this.shape.headSize;
  }

  #make(rows: number, slots: number): void {
    const { layers, heads, headSize } = this.shape, bytes = rows * slots * this.#width * FLOAT;
    const memory = new HostMemory(2 * layers * bytes);
    const parts = Array.from({ length: 2 * layers }, (_, i) => memory.bytes.subarray(i * bytes, (i + 1) * bytes));
    this.#layout = { memory, rows, slots };
    this.tensors = this.register.add(parts.map((bytes) => ({ bytes, slots })), [rows, heads, slots, headSize]);
  }

  #copy(source: Layout, moves: readonly RowCopy[]): void {
    const width = this.#width, { memory, rows, slots } = this.#layout, to = memory.floats, from = source.memory.floats;
    for (let cache = 0; cache < 2 * this.shape.layers; cache++) {
      for (const move of moves) {
        const start = (cache * source.rows + move.from) * source.slots * width;
        to.set(from.subarray(start, start + move.length * width), (cache * rows + move.to) * slots * width);
      }
    }
  }
}
