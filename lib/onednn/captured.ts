/** A captured step: its programs by the sizes that they are for, and its runs. */

import * as tf from "@tensorflow/tfjs";
import { partsOf } from "../backend/expression.ts";
import { type CacheMemory, type Expression, makeProgram, type Program, type Run, type Shared } from "./program.ts";

/** What a step's inputs are, and where its results go. */
export interface Host {
  readonly shared: Shared;
  /** The memory behind a cache's tensor, and a number for all of that cache. */
  cacheOf(tensor: tf.Tensor): { memory: CacheMemory; cache: number };
  /** A float32 tensor. */
  createTensor(shape: number[], values: Float32Array): Promise<tf.Tensor>;
  /** An int32 or float32 tensor of a few numbers. */
  vector(values: Int32Array | Float32Array): tf.Tensor;
}

/** The inputs of a step by their numbers, as its graph uses them. */
interface Inputs {
  readonly tokens: number;
  readonly wanted: number | null;
  readonly integers: readonly number[];
  readonly caches: readonly number[];
  readonly buckets: readonly { positions: number; rectangle: { rows: number; columns: number } | null }[];
}

/** Programs that are kept. */
const MAX_PROGRAMS = 64;

/** A step that was captured. */
export class CapturedStep {
  readonly #inputs: Inputs;
  readonly #programs = new Map<string, Program>();

  /** Of what it gives. */
  constructor(private readonly host: Host, private readonly outputs: readonly Expression[]) {
    this.#inputs = inputsOf(outputs);
  }

  /** Runs it on inputs in the order of the capture. */
  async run(inputs: readonly tf.Tensor[]): Promise<tf.Tensor[]> {
    const { program, wanted } = this.#run(inputs, this.#integersOf(inputs));
    const results = [];
    for (const { op, values, width } of program.outputs) {
      const all = values.floats.subarray(0, wanted * width);
      if (op === "logits") results.push(await this.host.createTensor([wanted, width], all));
      else if (op === "argMax") results.push(this.host.vector(largest(all, width)));
      else results.push(this.host.vector(largestLogs(all, width)));
    }
    return results;
  }

  /** Runs it `count` times, each fed what the one before chose, with inputs `moving` plus 1. */
  chain(inputs: readonly tf.Tensor[], moving: readonly number[], count: number): Int32Array[] {
    const integers = this.#integersOf(inputs);
    return Array.from({ length: count }, () => {
      const { program: { outputs: [{ values, width }] }, wanted } = this.#run(inputs, integers);
      const ids = largest(values.floats.subarray(0, wanted * width), width);
      integers.set(this.#inputs.tokens, ids);
      for (const input of moving) integers.set(input, integers.get(input)!.map((position) => position + 1));
      return ids;
    });
  }

  #integersOf(inputs: readonly tf.Tensor[]): Map<number, Int32Array> {
    return new Map(this.#inputs.integers.map((input) => [input, inputs[input].dataSync<"int32">() as Int32Array]));
  }

  #run(inputs: readonly tf.Tensor[], integers: ReadonlyMap<number, Int32Array>): { program: Program; wanted: number } {
    const { tokens, wanted, caches, buckets } = this.#inputs;
    const found = new Map(caches.map((input) => [input, this.host.cacheOf(inputs[input])]));
    const memory = new Map(Array.from(found, ([input, { memory }]) => [input, memory]));
    const runs = new Map(buckets.map(({ positions, rectangle }) => {
      const rows = rectangle && integers.get(rectangle.rows)!;
      return [positions, runsOf(integers.get(positions)!, rows)];
    }));
    const N = integers.get(tokens)!.length, M = wanted === null ? N : integers.get(wanted)!.length;
    const places = Array.from(runs.values(), (runs) => runs.map((run) => Object.values(run).join(":")).join());
    const key = [N, M, ...places, ...new Set(Array.from(found.values(), ({ cache }) => cache))].join(" ");
    const step = { integers, caches: memory };
    let program = this.#programs.get(key);
    if (!program) {
      if (this.#programs.size >= MAX_PROGRAMS) this.#programs.delete(this.#programs.keys().next().value!);
      program = makeProgram(this.host.shared, this.outputs, { tokens: N, wanted: M, runs }, step);
    }
    this.#programs.delete(key);
    this.#programs.set(key, program); // the last one used comes last
    for (const call of program.calls) call(step);
    return { program, wanted: M };
  }

  /** Forgets the programs. */
  dispose(): void {
    this.#programs.clear();
  }
}

/** Rows that are fed the same number of tokens, and lie side by side. Without `rows` each token is of a row of its own. */
function runsOf(positions: Int32Array, rows: Int32Array | null): Run[] {
  const runs: Run[] = [];
  for (let first = 0; first < positions.length;) {
    const row = rows ? rows[first] : first;
    let end = first + 1;
    while (rows && end < rows.length && rows[end] === row) end++;
    const tokens = end - first, slots = slotsFor(positions[end - 1]), last = runs.at(-1);
    if (last && last.tokens === tokens && last.row + last.rows === row) {
      runs[runs.length - 1] = { ...last, rows: last.rows + 1, slots: Math.max(last.slots, slots) };
    } else runs.push({ row, rows: 1, tokens, first, slots });
    first = end;
  }
  return runs;
}

/** Looking at a few slots more costs less than a program for each number of them. */
function slotsFor(position: number): number {
  return 16 * Math.ceil((position + 1) / 16);
}

/** [M, V] -> [M]: where each row's largest number is. */
function largest(values: Float32Array, width: number): Int32Array {
  return Int32Array.from({ length: values.length / width }, (_, row) => {
    const all = values.subarray(row * width, (row + 1) * width);
    let best = -Infinity, place = 0;
    for (let i = 0; i < width; i++) {
      const value = all[i];
      if (value > best) {
        best = value;
        place = i;
      }
    }
    return place;
  });
}

/** Probabilities [M, V] -> [M]: the natural logarithm of each row's largest. */
function largestLogs(values: Float32Array, width: number): Float32Array {
  return Float32Array.from(largest(values, width), (place, row) => Math.log(values[row * width + place]));
}

/** Which inputs a graph uses, and as what. */
function inputsOf(outputs: readonly Expression[]): Inputs {
  const integers = new Set<number>(),
    caches = new Set<number>(),
    buckets = new Map<number, Inputs["buckets"][number]>();
  const seen = new Set<Expression>();
  let tokens: number | undefined, wanted: number | null = null;
  const visit = (expression: Expression) => {
    if (seen.has(expression)) return;
    seen.add(expression);
    if (expression.op === "embed") {
      tokens ??= expression.ids; // they are looked up first
      integers.add(expression.ids);
    } else if (expression.op === "pick") integers.add(wanted = expression.rows);
    else if (expression.op === "attend") {
      const { bucket } = expression;
      buckets.set(bucket.positions, bucket);
      integers.add(bucket.positions);
      if (bucket.rectangle) integers.add(bucket.rectangle.rows);
      caches.add(expression.keys).add(expression.values);
    }
    partsOf(expression).forEach(visit);
  };
  outputs.forEach(visit);
  if (tokens === undefined || !buckets.size) {
    throw new Error("Cannot capture a step that looks up no tokens or uses no cache.");
  }
  return { tokens, wanted, integers: [...integers], caches: [...caches], buckets: [...buckets.values()] };
}
