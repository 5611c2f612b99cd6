/**
 * Caches on libtensorflow's CPU: those of all layers are one tensor, which captured steps take apart. Rows are moved within its
 * memory and from one to the other, only the slots that have tokens; and what one bucket leaves the next one takes, because new
 * memory, which the system clears page by page, costs more than what is then copied there.
 */

import * as tf from "@tensorflow/tfjs";
import type { Caches, CacheShape, RowCopy } from "../backend/ops.ts";
import { bfloat16ToFloat32 } from "../util/half.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

const FLOAT_BYTES = Float32Array.BYTES_PER_ELEMENT;

/** Memory is used for what takes more than this part of it. */
const LEAST = 1 / 4;

/** How rows lie. */
interface Layout {
  /** [2·layers, cells, D/H], where a cell of bfloat16 takes half of one: the first R·heads·S cells of each cache are [R, heads, S]. */
  memory: tf.Tensor3D;
  /** S. */
  slots: number;
}

/** See {@link Caches}. Where no token is yet there are some finite numbers. */
export class CachesInOne implements Caches {
  #layout: Layout;
  /** R. */
  #rows: number;

  /** Empty ones, with room for so many rows of so many slots. */
  constructor(
    private readonly backend: TensorflowBackend,
    private readonly shape: CacheShape,
    rows: number,
    slots: number,
  ) {
    this.#rows = rows;
    this.#layout = { memory: this.#take(this.#cells(rows, slots)), slots };
  }

  /** The one. */
  get tensors(): readonly tf.Tensor[] {
    return [this.#layout.memory];
  }

  /** Bytes of the memory. */
  get bytes(): number {
    return this.#layout.memory.size * FLOAT_BYTES;
  }

  /** See {@link Caches.resize}. */
  resize(rows: number, slots: number, lengths: readonly number[]): void {
    const { memory } = this.#layout, cells = this.#cells(rows, slots);
    this.#change({ memory: suits(memory, cells) ? memory : this.#take(cells), slots }, lengths);
    this.#rows = rows;
  }

  /** See {@link Caches.trim}. */
  trim(lengths: readonly number[]): void {
    const { memory, slots } = this.#layout, cells = this.#cells(this.#rows, slots);
    if (cells < memory.shape[1]) this.#change({ memory: this.#make(cells), slots }, lengths);
  }

  /** See {@link Caches.copy}. */
  copy(source: CachesInOne, moves: readonly RowCopy[]): void {
    this.#copy(source.#layout, moves);
  }

  /** See {@link Caches.read}. */
  read(cache: number, row: number, length: number): tf.Tensor3D {
    const { memory, slots } = this.#layout, { heads, headSize, layers, cachedBytes } = this.shape;
    const { buffer, byteOffset } = this.backend.partsOf(memory, 2 * layers)[cache], width = length * headSize;
    const numbers = new Float32Array(heads * width);
    for (let head = 0; head < heads; head++) {
      const first = byteOffset + cachedBytes * headSize * slots * (row * heads + head);
      const own = numbers.subarray(head * width, (head + 1) * width);
      if (cachedBytes === FLOAT_BYTES) own.set(new Float32Array(buffer, first, width));
      else bfloat16ToFloat32(new Uint16Array(buffer, first, width), own);
    }
    return tf.tensor3d(numbers, [heads, length, headSize]);
  }

  /** Leaves the memory to others. */
  dispose(): void {
    this.shape.spare.push(this.#layout.memory);
  }

  #change(after: Layout, lengths: readonly number[]): void {
    const before = this.#layout;
    this.#layout = after;
    if (after.memory === before.memory && after.slots === before.slots) return;
    // In the same memory each goes further up: the last one first, then none is written to where another still is.
    this.#copy(before, lengths.map((length, row) => ({ from: row, to: row, length })).reverse());
    if (after.memory !== before.memory) this.shape.spare.push(before.memory);
  }

  #copy(source: Layout, moves: readonly RowCopy[]): void {
    const { heads, headSize, layers, cachedBytes } = this.shape, width = headSize * cachedBytes;
    const headsOf = ({ memory, slots }: Layout, cache: number, row: number) => ({
      first: cache * memory.size / (2 * layers) * FLOAT_BYTES + width * ((row + 1) * heads - 1) * slots, // the last one, as of the rows
      step: -width * slots,
    });
    const blocks = Array.from({ length: 2 * layers }, (_, cache) =>
      moves.map(({ from, to, length }) => ({
        count: heads,
        length: width * length,
        from: headsOf(source, cache, from),
        to: headsOf(this.#layout, cache, to),
      })));
    this.backend.copyBytes(this.#layout.memory, source.memory, blocks.flat());
  }

  /** What rows take of a memory. */
  #cells(rows: number, slots: number): number {
    return rows * this.shape.heads * slots * this.shape.cachedBytes / FLOAT_BYTES; // slots are even
  }

  /** The smallest spare memory that suits, or else some of its own. */
  #take(cells: number): tf.Tensor3D {
    const { spare } = this.shape, suitable = (spare as tf.Tensor3D[]).filter((memory) => suits(memory, cells));
    const [best] = suitable.sort((a, b) => a.size - b.size);
    if (!best) return this.#make(cells);
    spare.splice(spare.indexOf(best), 1);
    return best;
  }

  #make(cells: number): tf.Tensor3D {
    return tf.fill([2 * this.shape.layers, cells, this.shape.headSize], 0);
  }
}

function suits({ shape: [, cells] }: tf.Tensor3D, needed: number): boolean {
  return needed <= cells && needed > LEAST * cells;
}
