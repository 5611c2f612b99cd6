/** A captured step: its programs by the sizes that they are for, and its runs. */

import * as tf from "@tensorflow/tfjs";
import { type Bucket, partsOf } from "../backend/expression.ts";
import { multipleOf16 } from "../backend/plain.ts";
import type { OperationTime } from "../tensorflow/capi/trace.ts";
import type { BucketSizes, Run } from "./attention.ts";
import type { Integers, Shared } from "./plan.ts";
import { type Expression, makeProgram, type Output, type Program, type Sizes } from "./program.ts";

/** What a step's inputs are, and where its results go. */
export interface Host {
  readonly shared: Shared;
  /** The memory of a tensor of caches: for each layer its keys and its values. */
  cachesIn(tensor: tf.Tensor): readonly Uint8Array<ArrayBuffer>[];
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
  readonly buckets: readonly Bucket[];
}

/** Runs before one that is timed. */
const WARMUPS = 3;

/** Programs that are kept. */
const MAX_PROGRAMS = 64;

/** A step that was captured. */
export class CapturedStep {
  readonly #inputs: Inputs;
  readonly #programs = new Map<string, Program>();
  /** The caches that programs are bound to. */
  readonly #bound = new WeakMap<Program, readonly object[]>();

  /** Of what it gives. */
  constructor(private readonly host: Host, private readonly outputs: readonly Expression[]) {
    this.#inputs = inputsOf(outputs);
  }

  /** Runs it on inputs in the order of the capture. */
  async run(inputs: readonly tf.Tensor[]): Promise<tf.Tensor[]> {
    const { program, wanted } = this.#run(inputs, this.#integersOf(inputs));
    const results = [];
    for (const output of program.outputs) {
      if (output.op === "argMax") results.push(this.host.vector(placesOf(output, wanted)));
      else if (output.op === "maxLogprob") {
        results.push(this.host.vector(output.largest.memory.floats.subarray(0, wanted).map(Math.log)));
      } else {
        const { memory, width } = output.values;
        results.push(await this.host.createTensor([wanted, width], memory.floats.subarray(0, wanted * width)));
      }
    }
    return results;
  }

  /** Runs it `count` times, each fed what the one before chose, with inputs `moving` plus 1. */
  chain(inputs: readonly tf.Tensor[], moving: readonly number[], count: number): Int32Array[] {
    const integers = this.#integersOf(inputs);
    return Array.from({ length: count }, () => {
      const { program: { outputs: [output] }, wanted } = this.#run(inputs, integers), ids = placesOf(output, wanted);
      integers.set(this.#inputs.tokens, ids);
      for (const input of moving) integers.set(input, integers.get(input)!.map((position) => position + 1));
      return ids;
    });
  }

  #integersOf(inputs: readonly tf.Tensor[]): Map<number, Int32Array> {
    return new Map(this.#inputs.integers.map((input) => [input, inputs[input].dataSync<"int32">() as Int32Array]));
  }

  /** Runs it a few times, and says of the last one when each of its calls began, and how long it took. */
  trace(inputs: readonly tf.Tensor[]): OperationTime[] {
    const integers = this.#integersOf(inputs), { program } = this.#ready(inputs, integers);
    const { threads } = this.host.shared.library;
    for (let run = 0; run < WARMUPS; run++) for (const call of program.calls) call.run(integers);
    const start = performance.now(), since = () => 1e3 * (performance.now() - start);
    return program.calls.map((call) => {
      const start = since();
      call.run(integers);
      return { name: call.name, start, duration: since() - start, threads: call.shared ? threads : 1 };
    });
  }

  #run(inputs: readonly tf.Tensor[], integers: Integers): { program: Program; wanted: number } {
    const ready = this.#ready(inputs, integers);
    for (const call of ready.program.calls) call.run(integers);
    return ready;
  }

  /** The program for these inputs, bound to their caches, and how many logits it gives. */
  #ready(inputs: readonly tf.Tensor[], integers: Integers): { program: Program; wanted: number } {
    const { tokens, wanted, buckets } = this.#inputs;
    const sizes = new Map(buckets.map(({ positions, rectangle, slots }): [number, BucketSizes] => {
      const rows = rectangle && integers.get(rectangle.rows)!;
      return [positions, { slots: inputs[slots].size, runs: runsOf(integers.get(positions)!, rows) }];
    }));
    const N = integers.get(tokens)!.length, M = wanted === null ? N : integers.get(wanted)!.length;
    const program = this.#program({ tokens: N, wanted: M, buckets: sizes });
    this.#bind(program, inputs);
    return { program, wanted: M };
  }

  #program(sizes: Sizes): Program {
    const { tokens, wanted, buckets } = sizes, programs = this.#programs;
    const places = Array.from(
      buckets.values(),
      ({ slots, runs }) => `${slots};${runs.map((run) => Object.values(run).join(":")).join()}`,
    );
    const key = [this.host.shared.library.threads, tokens, wanted, ...places].join(" ");
    const program = programs.get(key) ?? makeProgram(this.host.shared, this.outputs, sizes);
    programs.delete(key);
    programs.set(key, program); // the last one used comes last
    if (programs.size > MAX_PROGRAMS) programs.delete(programs.keys().next().value!);
    return program;
  }

  /** Has a program use the caches that the step is given. */
  #bind(program: Program, inputs: readonly tf.Tensor[]): void {
    const caches = this.#inputs.buckets.map(({ caches: [input] }) => input),
      tensors = caches.map((input) => inputs[input]);
    const known = this.#bound.get(program);
    if (known && tensors.every(({ dataId }, i) => dataId === known[i])) return;
    program.bind(new Map(caches.map((input, i) => [input, this.host.cachesIn(tensors[i])])));
    this.#bound.set(program, tensors.map(({ dataId }) => dataId));
  }

  /** Forgets the programs. */
  dispose(): void {
    this.#programs.clear();
  }
}

/**
 * Rows that are fed the same number of tokens, and lie side by side. Without `rows` each token is of a row of its own. To look at a few
 * slots more costs less than a program for each number of them.
 */
function runsOf(positions: Int32Array, rows: Int32Array | null): Run[] {
  const runs: Run[] = [];
  for (let first = 0; first < positions.length;) {
    const row = rows ? rows[first] : first;
    let end = first + 1;
    while (rows && end < rows.length && rows[end] === row) end++;
    const tokens = end - first, slots = multipleOf16(positions[end - 1] + 1), last = runs.at(-1);
    if (last && last.tokens === tokens && last.row + last.rows === row) {
      const aligned = last.aligned && positions[first] === positions[last.first];
      runs[runs.length - 1] = { ...last, rows: last.rows + 1, slots: Math.max(last.slots, slots), aligned };
    } else runs.push({ row, rows: 1, tokens, first, slots, aligned: true });
    first = end;
  }
  return runs;
}

/** Where each row's largest number is, [M]. */
function placesOf(output: Output, rows: number): Int32Array {
  if (output.op !== "argMax") throw new Error("Cannot chain steps that do not choose a token for each row.");
  const { width, memory: { floats } } = output.values, most = output.largest.memory.floats;
  return Int32Array.from({ length: rows }, (_, row) => {
    return Math.max(0, floats.subarray(row * width, (row + 1) * width).indexOf(most[row])); // 0 where there are no numbers
  });
}

/** Which inputs a graph uses, and as what. */
function inputsOf(outputs: readonly Expression[]): Inputs {
  const integers = new Set<number>(),
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
    }
    partsOf(expression).forEach(visit);
  };
  outputs.forEach(visit);
  if (tokens === undefined || !buckets.size) {
    throw new Error("Cannot capture a step that looks up no tokens or uses no cache.");
  }
  return { tokens, wanted, integers: [...integers], buckets: [...buckets.values()] };
}
