/** Attention of a step's tokens: first all of a bucket's keys and values go to its cache, then each run of rows looks at it. */

import type { Bucket } from "../backend/expression.ts";
import { Arg, DataType, type Handle, type Onednn } from "./library.ts";
import { BYTES, FLOAT_BYTES, type Plan, type Value } from "./plan.ts";

/** Neighbouring rows of a bucket that are fed equally many tokens, and so attend together. */
export interface Run {
  /** The first row's place in the cache. */
  readonly row: number;
  readonly rows: number;
  /** Of each row. */
  readonly tokens: number;
  /** The first one's place among the step's tokens. */
  readonly first: number;
  /** How many slots are looked at. */
  readonly slots: number;
  /** All rows' tokens have the same positions. */
  readonly aligned: boolean;
}

/** The rows of a bucket that are fed in a step. */
export interface BucketSizes {
  /** S. */
  readonly slots: number;
  readonly runs: readonly Run[];
}

/** A type in which caches keep numbers. */
export type CachedType = typeof DataType.float32 | typeof DataType.bfloat16;

/** Where a bucket attends: its tokens among the step's, and its caches. */
export interface Place {
  /** [N, 3·D], in the type of the caches. */
  readonly qkv: Value;
  /** [N, D], what comes of it. */
  readonly value: Value;
  readonly heads: number;
  /** D/H. */
  readonly size: number;
  readonly bucket: Bucket;
  readonly layer: number;
  readonly sizes: BucketSizes;
  /** The bucket's first token. */
  readonly first: number;
}

/** What stands for caches until they are known. */
const NOWHERE: Uint8Array<ArrayBuffer> = new Uint8Array(1);

/** What the mask adds to the score of a token that must not be seen. */
const HIDDEN = -1e9;

/** Plans the attention of one program. */
export class AttentionPlanner {
  readonly #masks = new Map<Run, Handle>();

  constructor(private readonly plan: Plan) {}

  /** Of a bucket in a layer: [N, 3·D] -> [N, D], its tokens' part of both. */
  attend(place: Place): void {
    const { runs } = place.sizes;
    for (const run of runs) {
      if (run.aligned) this.#writeAligned(place, run);
      else this.#writeRows(place, run);
    }
    for (const run of runs) this.#attendRun(place, run);
  }

  /** Puts tokens' keys and values where their positions say, which are the same in all rows: one call each. */
  #writeAligned({ qkv, heads: H, size, bucket, layer, sizes: { slots: all }, first }: Place, run: Run): void {
    const { rows: R, tokens: T } = run, D = H * size, { plan, plan: { library } } = this, { type } = qkv.form;
    const given = library.describe([R, H, T, size], type, [3 * D * T, size, 3 * D, 1]);
    const kept = library.describe([R, H, T, size], type, [all * D, all * size, size, 1]);
    const copy = plan.primitive(`write ${[R, H, T, size, all, type]}`, () => library.reorder(given, kept));
    for (const [i, part] of [2 * layer, 2 * layer + 1].entries()) {
      const from = library.memory(given, partOf(qkv, first + run.first).subarray((i + 1) * D * BYTES[type]));
      const to = library.memory(kept, NOWHERE), args = library.arguments([[Arg.source, from], [Arg.destination, to]]);
      let cache = NOWHERE;
      plan.binds.push((caches) => cache = caches.get(bucket.caches[0])![part]);
      plan.add("write", (integers) => {
        const place = run.row * D * all + integers.get(bucket.positions)![run.first] * size;
        library.move(to, cache.subarray(place * BYTES[type]));
        library.execute(copy, args);
      }, true);
    }
  }

  /** The same where they are not. */
  #writeRows({ qkv, heads, size, bucket, layer, sizes: { slots: all }, first }: Place, run: Run): void {
    const { type } = qkv.form, from = numbersOf(qkv.memory.bytes, type), D = heads * size;
    const caches: Numbers[] = [], { row, rows, tokens } = run;
    this.plan.binds.push((bytes) =>
      [0, 1].forEach((i) => caches[i] = numbersOf(bytes.get(bucket.caches[0])![2 * layer + i], type))
    );
    this.plan.add("write", (integers) => {
      const at = integers.get(bucket.positions)!;
      for (let i = 0; i < rows * tokens; i++) {
        const token = run.first + i, own = (first + token) * 3 * D;
        const to = (row + Math.floor(i / tokens)) * D * all + at[token] * size;
        copyHeads(caches[0], to, from, own + D, heads, size, all * size);
        copyHeads(caches[1], to, from, own + 2 * D, heads, size, all * size);
      }
    });
  }

  #attendRun({ qkv, value, heads: H, size, bucket, layer, sizes: { slots: all }, first }: Place, run: Run): void {
    const { rows: R, tokens: T, slots: S } = run, D = H * size, start = first + run.first, { type } = qkv.form;
    const { plan, plan: { library } } = this, { float32 } = DataType, key = `${[R, H, T, S, size, all, type]}`;
    const scoresShape = library.describe([R, H, T, S], float32), sharesShape = library.describe([R, H, T, S], type);
    const queries = library.describe([R, H, T, size], type, [3 * D * T, size, 3 * D, 1]);
    const keys = library.describe([R, H, size, S], type, [all * D, all * size, 1, size]);
    const values = library.describe([R, H, S, size], type, [all * D, all * size, size, 1]);
    const sums = library.describe([R, H, T, size], float32, [D * T, size, D, 1]);
    const maskShape = library.describe([R, 1, T, S], float32);
    const multiply = plan.primitive(
      `scores ${key}`,
      () => library.matmul(queries, keys, null, scoresShape, { then: [{ op: "add", to: maskShape }] }),
    );
    const softmax = plan.primitive(`shares ${[R, H, T, S, type]}`, () => library.softmax(scoresShape, sharesShape, 3));
    const weigh = plan.primitive(`weigh ${key}`, () => library.matmul(sharesShape, values, null, sums));
    const scores = plan.take(R * H * T * S * FLOAT_BYTES);
    const shares = type === float32 ? scores : plan.take(R * H * T * S * BYTES[type]); // in place where it is the same type
    const scored = library.memory(scoresShape, scores.bytes), shared = library.memory(sharesShape, shares.bytes);
    plan.call("scores", multiply, [
      [Arg.source, library.memory(queries, partOf(qkv, start))],
      [Arg.weights, this.#cache(keys, bucket, 2 * layer, run.row * all * D * BYTES[type])],
      [Arg.destination, scored],
      [Arg.operand(0), this.#mask(run, bucket, maskShape)],
    ]);
    plan.call("softmax", softmax, [[Arg.source, scored], [Arg.destination, shared]]);
    plan.call("weigh", weigh, [
      [Arg.source, shared],
      [Arg.weights, this.#cache(values, bucket, 2 * layer + 1, run.row * all * D * BYTES[type])],
      [Arg.destination, library.memory(sums, partOf(value, start))],
    ]);
    for (const memory of [scores, shares]) plan.release(memory);
  }

  /** Part of a cache, from so many bytes on. Where that is the program is told later. */
  #cache(shape: Handle, { caches: [input] }: Bucket, part: number, first: number): Handle {
    const { plan: { library } } = this, memory = library.memory(shape, NOWHERE);
    this.plan.binds.push((bytes) => library.move(memory, bytes.get(input)![part].subarray(first)));
    return memory;
  }

  /** What is added to the scores, [R, 1, T, S]: 0 for the slots up to a token's own, a large negative number beyond. Once for all layers. */
  #mask(run: Run, { positions }: Bucket, shape: Handle): Handle {
    const known = this.#masks.get(run);
    if (known) return known;
    const { rows, tokens, slots, first } = run;
    const memory = this.plan.take(rows * tokens * slots * FLOAT_BYTES), { floats } = memory;
    this.plan.add("mask", (integers) => {
      const at = integers.get(positions)!;
      for (let i = 0; i < rows * tokens; i++) {
        const seen = i * slots + at[first + i] + 1;
        floats.fill(0, i * slots, seen);
        floats.fill(HIDDEN, seen, (i + 1) * slots);
      }
    });
    const mask = this.plan.library.memory(shape, memory.bytes);
    this.#masks.set(run, mask);
    return mask;
  }
}

/**
 * The type of keys and values in caches, where weights have this one. Where these are rounded anyway, bfloat16 adds no error that
 * shows, and is read in half the time.
 */
export function cachedType(library: Onednn, weights: DataType): CachedType {
  return weights !== DataType.float32 && library.bfloat16 ? DataType.bfloat16 : DataType.float32;
}

/** Numbers to copy, whatever they are. */
type Numbers = Float32Array | Uint16Array;

function numbersOf({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>, type: DataType): Numbers {
  const length = byteLength / BYTES[type];
  return type === DataType.float32
    ? new Float32Array(buffer, byteOffset, length)
    : new Uint16Array(buffer, byteOffset, length);
}

/** The rows from `first` on. */
function partOf({ memory, width, form }: Value, first: number): Uint8Array<ArrayBuffer> {
  return memory.bytes.subarray(first * width * BYTES[form.type]);
}

/** A token's heads, which lie side by side, to their rows in a cache. In a loop: a head is too short for copies of memory to pay. */
function copyHeads(
  to: Numbers,
  first: number,
  from: Numbers,
  start: number,
  heads: number,
  size: number,
  stride: number,
): void {
  for (let head = 0; head < heads; head++) {
    const a = first + head * stride, b = start + head * size;
    for (let i = 0; i < size; i++) to[a + i] = from[b + i];
  }
}
