/**
 * A step for certain sizes: the calls that compute it, in order. Each takes in what oneDNN can do in one go: a product with its bias,
 * GELU, the sum with the residual stream, and the rounding to the type in which the next product reads.
 */

import type * as tf from "@tensorflow/tfjs";
import { type Expression as Recorded, partsOf } from "../backend/expression.ts";
import { HostMemory } from "./host_memory.ts";
import { Arg, type Attributes, DataType, type Handle, type Onednn, type PostOp, type Primitive } from "./library.ts";
import type { Form, Weight } from "./weight.ts";

/** A step's graph. */
export type Expression = Recorded<Weight>;

/** What a step is fed, by the numbers of its inputs. */
export interface StepData {
  readonly integers: ReadonlyMap<number, Int32Array>;
  readonly caches: ReadonlyMap<number, CacheMemory>;
}

/** The keys, or the values, of a bucket's rows in one layer: [R, S, D]. */
export interface CacheMemory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly slots: number;
}

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
}

/** What the calls of a step depend on. */
export interface Sizes {
  /** N. */
  readonly tokens: number;
  /** M. */
  readonly wanted: number;
  /** By the input that holds a bucket's positions. */
  readonly runs: ReadonlyMap<number, readonly Run[]>;
}

/** One result of a step. */
export interface Output {
  readonly op: "argMax" | "maxLogprob" | "logits";
  /** [M, V]: logits, or for `maxLogprob` the probabilities. */
  readonly values: HostMemory;
  readonly width: number;
}

/** A step, ready to run. */
export interface Program {
  readonly calls: readonly ((step: StepData) => void)[];
  readonly outputs: readonly Output[];
}

/** What programs share. */
export interface Shared {
  readonly library: Onednn;
  /** By what they compute, and for which shapes. */
  readonly primitives: Map<string, Primitive>;
  /** The numbers of a tensor that the model holds. */
  valuesOf(tensor: tf.Tensor): Float32Array;
  /** Memory that programs use while they run: one at a time. */
  readonly scratch: HostMemory[];
  /** Gains and biases of layer norms, by the tensor of the gain and the form of the result. */
  readonly norms: WeakMap<object, Map<string, { gain: Handle; shift: Handle }>>;
}

/** Makes the calls. Throws an error for a graph that they cannot compute. */
export function makeProgram(shared: Shared, outputs: readonly Expression[], sizes: Sizes, step: StepData): Program {
  const planner = new Planner(shared, sizes, step, outputs);
  return planner.program(outputs);
}

/** Products of fewer rows take longer than those of so many, which other rows of zeros make up. */
const LEAST_ROWS = 4;
/** Primitives that are kept. */
const MAX_PRIMITIVES = 2048;

const FLOAT: Form = { type: DataType.float32 }, FLOAT_BYTES = Float32Array.BYTES_PER_ELEMENT;
const BYTES: Readonly<Record<DataType, number>> = {
  [DataType.bfloat16]: 2,
  [DataType.float32]: 4,
  [DataType.int32]: 4,
  [DataType.int8]: 1,
  [DataType.uint8]: 1,
};

/** Numbers [rows, width], of which the first `count` rows are the step's. */
interface Value {
  readonly memory: HostMemory;
  readonly form: Form;
  readonly rows: number;
  readonly count: number;
  readonly width: number;
  /** Of int8 numbers: what each row's are to be multiplied by, [rows, 1]. */
  readonly scales?: HostMemory;
}

class Planner {
  readonly #library: Onednn;
  readonly #calls: ((step: StepData) => void)[] = [];
  /** What was made of each expression, in the forms that were asked for. */
  readonly #values = new Map<Expression, Value[]>();
  /** How often an expression's value is still going to be read. */
  readonly #uses = new Map<Expression, number>();
  readonly #masks = new Map<Run, Handle>();
  readonly #free: HostMemory[];

  constructor(
    private readonly shared: Shared,
    private readonly sizes: Sizes,
    private readonly step: StepData,
    outputs: readonly Expression[],
  ) {
    this.#library = shared.library;
    this.#free = [...shared.scratch];
    const count = (expression: Expression) => {
      const uses = this.#uses.get(expression) ?? 0;
      this.#uses.set(expression, uses + 1);
      if (uses === 0) partsOf(expression).forEach(count);
    };
    outputs.forEach(count);
  }

  program(outputs: readonly Expression[]): Program {
    const made = outputs.map((output): Output => {
      if (output.op === "argMax") return { op: output.op, ...this.#logits(output.logits) };
      if (output.op === "maxLogprob") return { op: output.op, ...this.#probabilities(output.logits) };
      return { op: "logits", ...this.#logits(output) };
    });
    return { calls: this.#calls, outputs: made };
  }

  #logits(expression: Expression): Pick<Output, "values" | "width"> {
    const { memory, width } = this.#value(expression, FLOAT);
    return { values: memory, width };
  }

  #probabilities(expression: Expression): Pick<Output, "values" | "width"> {
    const logits = this.#value(expression, FLOAT), { rows, width } = logits;
    const probabilities = this.#take(rows, width), shape = [rows, width];
    const described = this.#library.describe(shape, DataType.float32);
    const softmax = this.#primitive(`softmax ${shape}`, () => this.#library.softmax(described, 1));
    this.#run(softmax, [[Arg.source, this.#memory(logits)], [
      Arg.destination,
      this.#library.memory(described, probabilities.bytes),
    ]]);
    return { values: probabilities, width };
  }

  /** An expression's numbers in a form. */
  #value(expression: Expression, form: Form): Value {
    const made = this.#values.get(expression) ?? [];
    this.#values.set(expression, made);
    const known = made.find((value) => sameForm(value.form, form));
    if (known) return known;
    const value = this.#make(expression, form);
    if (!made.includes(value)) made.push(value);
    if (sameForm(value.form, form)) return value;
    const changed = this.#convert(value, form);
    made.push(changed);
    return changed;
  }

  /** The numbers in that form, if whoever makes them can, or else as float32. */
  #make(expression: Expression, form: Form): Value {
    const float = this.#values.get(expression)?.find((value) => sameForm(value.form, FLOAT));
    if (float) return float;
    switch (expression.op) {
      case "embed":
        return this.#embed(expression);
      case "add":
        return this.#add(expression);
      case "layerNorm":
        return this.#layerNorm(expression, form);
      case "linear":
        return this.#linear(expression, form.type === DataType.int8 ? FLOAT : form, null);
      case "pick":
        return this.#pick(expression);
      case "attend":
        return this.#attend([expression]);
      case "join":
        return this.#attend(expression.parts);
      default:
        throw new Error(`Cannot capture a step with ${expression.op} where numbers are wanted.`);
    }
  }

  /** One more reader of an expression is done. */
  #read(expression: Expression): void {
    const uses = this.#uses.get(expression)! - 1;
    this.#uses.set(expression, uses);
    if (uses > 0) return;
    for (const { memory, scales } of this.#values.get(expression) ?? []) {
      if (!this.#free.includes(memory)) this.#free.push(memory);
      if (scales) this.#free.push(scales);
    }
    this.#values.delete(expression);
  }

  #embed({ table, ids }: Expression & { op: "embed" }): Value {
    const [, width] = table.shape, value = this.#float(this.sizes.tokens, width), { floats } = value.memory;
    const rows = this.shared.valuesOf(table);
    this.#calls.push(({ integers }) => {
      integers.get(ids)!.forEach((id, i) => floats.set(rows.subarray(id * width, (id + 1) * width), i * width));
      floats.fill(0, value.count * width, value.rows * width);
    });
    return value;
  }

  #add({ a, b }: Expression & { op: "add" }): Value {
    const left = this.#value(a, FLOAT);
    if (b.op === "linear") this.#value(b.x, b.weight.form); // which may read a
    // Into the residual stream, if nobody wants what it was before: the product adds to what it finds.
    if (b.op === "linear" && this.#uses.get(a) === 1 && this.#uses.get(b) === 1) {
      const sum = this.#linear(b, FLOAT, left);
      this.#uses.set(a, 0);
      this.#values.delete(a);
      return sum;
    }
    const right = this.#value(b, FLOAT), sum = this.#float(left.count, left.width);
    const [x, y, z] = [left, right, sum].map(({ memory }) => memory.floats), size = sum.rows * sum.width;
    this.#calls.push(() => addTo(z, x, y, size));
    this.#read(a);
    this.#read(b);
    return sum;
  }

  #layerNorm({ x, gain, bias, epsilon }: Expression & { op: "layerNorm" }, form: Form): Value {
    const input = this.#value(x, FLOAT), type = form.type === DataType.int8 ? DataType.float32 : form.type;
    const value = this.#like(input, type === form.type ? form : FLOAT), shape = [input.rows, input.width];
    const norm = this.#primitive(`norm ${[...shape, type, epsilon]}`, () => {
      const [from, to] = [DataType.float32, type].map((type) => this.#library.describe(shape, type));
      return this.#library.layerNorm(from, to, epsilon);
    });
    const { gain: factors, shift } = this.#norm(gain, bias, value.form);
    this.#run(norm, [
      [Arg.source, this.#memory(input)],
      [Arg.destination, this.#memory(value)],
      [Arg.gain, factors],
      [Arg.shift, shift],
    ]);
    this.#read(x);
    return value;
  }

  /** Gain and shift, where the result is to be rounded in units of its form. */
  #norm(gain: tf.Tensor1D, bias: tf.Tensor1D, form: Form): { gain: Handle; shift: Handle } {
    const { norms } = this.shared, key = JSON.stringify(form);
    let forms = norms.get(gain.dataId);
    if (!forms) norms.set(gain.dataId, forms = new Map());
    let norm = forms.get(key);
    if (!norm) {
      const { low, step } = { low: 0, step: 1, ...form };
      const [factors, shifts] = [gain, bias].map((tensor) => this.shared.valuesOf(tensor));
      norm = {
        gain: this.#library.numbers(Float32Array.from(factors, (x) => x / step)),
        shift: this.#library.numbers(Float32Array.from(shifts, (x) => (x - low) / step)),
      };
      forms.set(key, norm);
    }
    return norm;
  }

  /** In that form; or added to `onto`, which is float32. */
  #linear({ x, weight, gelu }: Expression & { op: "linear" }, form: Form, onto: Value | null): Value {
    const { form: taken, inputs, outputs } = weight, input = this.#value(x, taken), { rows } = input;
    const value = onto ?? { ...this.#numbers(rows, outputs, form), count: input.count };
    const { attributes: { scales } } = weight, byRow = input.scales !== undefined;
    const library = this.#library, ranged = form.type === DataType.uint8;
    const then: PostOp[] = [];
    if (byRow) then.push({ op: "multiply", by: library.describe([rows, 1], DataType.float32) });
    if (byRow) then.push({ op: "add", by: library.describe([1, outputs], DataType.float32) });
    if (gelu) then.push({ op: "gelu" });
    if (onto) then.push({ op: "sum" });
    const attributes: Attributes = {
      scales: ranged ? [...scales, [Arg.destination, 0]] : scales,
      zeros: ranged ? [Arg.destination] : [],
      then,
    };
    const key = `product ${[rows, inputs, outputs, taken.type, form.type, weight.type, gelu, onto !== null]}`;
    const product = this.#primitive(key, () =>
      library.matmul(
        library.describe([rows, inputs], taken.type),
        library.describeAny([inputs, outputs], weight.type),
        byRow ? null : library.describe([1, outputs], DataType.float32),
        library.describe([rows, outputs], form.type),
        attributes,
      ));
    this.#run(product, [
      [Arg.source, this.#memory(input)],
      [Arg.weights, weight.lyingAs(product.weights)],
      [Arg.destination, this.#memory(value)],
      ...weight.scaleArguments,
      ...byRow
        ? [
          [Arg.operand(0), library.memory(library.describe([rows, 1], DataType.float32), input.scales!.bytes)] as const,
          [Arg.operand(1), weight.bias] as const,
        ]
        : [[Arg.bias, weight.bias] as const],
      ...this.#units(form),
    ]);
    this.#read(x);
    return value;
  }

  #pick({ x, rows }: Expression & { op: "pick" }): Value {
    const all = this.#value(x, FLOAT), value = this.#float(this.sizes.wanted, all.width), { width, count } = value;
    const from = all.memory.floats, to = value.memory.floats;
    this.#calls.push(({ integers }) => {
      integers.get(rows)!.forEach((row, i) => to.set(from.subarray(row * width, (row + 1) * width), i * width));
      to.fill(0, count * width, value.rows * width);
    });
    this.#read(x);
    return value;
  }

  /** The attention of buckets, whose tokens lie one bucket's after the other's in the step. */
  #attend(parts: readonly Expression[]): Value {
    const attends = parts.map((part) => {
      if (part.op !== "attend") throw new Error(`Cannot capture a step with a join of ${part.op}.`);
      return part;
    });
    const [{ heads, size }] = attends, whole = wholeOf(attends[0].qkv), D = heads * size;
    const qkv = this.#value(whole, FLOAT), value = this.#float(qkv.count, D);
    if (value.rows > value.count) {
      const { floats } = value.memory;
      this.#calls.push(() => floats.fill(0, value.count * D, value.rows * D));
    }
    let first = 0; // of the bucket's tokens
    for (const { bucket, keys, values } of attends) {
      const runs = this.sizes.runs.get(bucket.positions)!;
      const caches = [keys, values].map((input) => this.step.caches.get(input)!);
      this.#write(qkv, D, bucket, first, runs, caches);
      for (const run of runs) this.#attendRun(run, { qkv, value, heads, size, first, bucket, caches });
      first += runs.reduce((sum, { rows, tokens }) => sum + rows * tokens, 0);
    }
    for (const { qkv: part } of attends) {
      this.#read(whole);
      if (part !== whole) this.#read(part);
    }
    return value;
  }

  /** Puts the tokens' keys and values where their positions say. */
  #write(
    { memory }: Value,
    D: number,
    { positions }: { positions: number },
    first: number,
    runs: readonly Run[],
    [keys, values]: readonly CacheMemory[],
  ): void {
    const { floats } = memory, [toKeys, toValues] = [keys, values].map(({ bytes }) => floatsOf(bytes)), S = keys.slots;
    this.#calls.push(({ integers }) => {
      const at = integers.get(positions)!;
      let token = 0;
      for (const { row, rows, tokens } of runs) {
        for (let i = 0; i < rows * tokens; i++, token++) {
          const from = (first + token) * 3 * D, to = ((row + Math.floor(i / tokens)) * S + at[token]) * D;
          toKeys.set(floats.subarray(from + D, from + 2 * D), to);
          toValues.set(floats.subarray(from + 2 * D, from + 3 * D), to);
        }
      }
    });
  }

  #attendRun(
    run: Run,
    { qkv, value, heads: H, size, first, bucket, caches: [keys, values] }: {
      qkv: Value;
      value: Value;
      heads: number;
      size: number;
      /** The bucket's first token. */
      first: number;
      bucket: { positions: number };
      caches: readonly CacheMemory[];
    },
  ): void {
    const { rows: R, tokens: T, slots: S } = run, library = this.#library, D = H * size, all = keys.slots;
    const { float32 } = DataType, start = first + run.first;
    const scores = this.#take(R * H * T, S), scoresShape = library.describe([R, H, T, S], float32);
    const queries = library.describe([R, H, T, size], float32, [3 * D * T, size, 3 * D, 1]);
    const keysShape = library.describe([R, H, size, S], float32, [all * D, size, 1, D]);
    const valuesShape = library.describe([R, H, S, size], float32, [all * D, size, D, 1]);
    const sums = library.describe([R, H, T, size], float32, [D * T, size, D, 1]);
    const maskShape = library.describe([R, 1, T, S], float32), key = `${[R, H, T, S, size, all]}`;
    const multiply = this.#primitive(
      `scores ${key}`,
      () => library.matmul(queries, keysShape, null, scoresShape, { then: [{ op: "add", by: maskShape }] }),
    );
    const softmax = this.#primitive(`softmax ${[R, H, T, S]}`, () => library.softmax(scoresShape, 3));
    const weigh = this.#primitive(`weigh ${key}`, () => library.matmul(scoresShape, valuesShape, null, sums));
    const at = (bytes: Uint8Array<ArrayBuffer>, floats: number) => bytes.subarray(floats * FLOAT_BYTES);
    const scored = library.memory(scoresShape, scores.bytes), row = run.row * all * D;
    this.#run(multiply, [
      [Arg.source, library.memory(queries, at(qkv.memory.bytes, start * 3 * D))],
      [Arg.weights, library.memory(keysShape, at(keys.bytes, row))],
      [Arg.destination, scored],
      [Arg.operand(0), this.#mask(run, bucket, maskShape)],
    ]);
    this.#run(softmax, [[Arg.source, scored], [Arg.destination, scored]]);
    this.#run(weigh, [
      [Arg.source, scored],
      [Arg.weights, library.memory(valuesShape, at(values.bytes, row))],
      [Arg.destination, library.memory(sums, at(value.memory.bytes, start * D))],
    ]);
    this.#free.push(scores);
  }

  /** What is added to the scores, [R, 1, T, S]: 0 for the slots up to a token's own, a large negative number beyond. Once for all layers. */
  #mask(run: Run, { positions }: { positions: number }, shape: Handle): Handle {
    const known = this.#masks.get(run);
    if (known) return known;
    const { rows, tokens, slots, first } = run, memory = this.#take(rows * tokens, slots), { floats } = memory;
    this.#calls.push(({ integers }) => {
      const at = integers.get(positions)!;
      for (let i = 0; i < rows * tokens; i++) {
        const seen = i * slots + at[first + i] + 1;
        floats.fill(0, i * slots, seen);
        floats.fill(HIDDEN, seen, (i + 1) * slots);
      }
    });
    const mask = this.#library.memory(shape, memory.bytes);
    this.#masks.set(run, mask);
    return mask;
  }

  /** float32 numbers in another form. */
  #convert(value: Value, form: Form): Value {
    if (form.type === DataType.int8) return this.#scaleRows(value, form);
    const changed = this.#like(value, form), shape = [value.rows, value.width], library = this.#library;
    const ranged = form.type === DataType.uint8;
    const reorder = this.#primitive(
      `reorder ${[...shape, form.type]}`,
      () =>
        library.reorder(library.describe(shape, DataType.float32), library.describe(shape, form.type), {
          scales: ranged ? [[Arg.destination, 0]] : [],
          zeros: ranged ? [Arg.destination] : [],
        }),
    );
    this.#run(reorder, [
      [Arg.source, this.#memory(value)],
      [Arg.destination, this.#memory(changed)],
      ...this.#units(form),
    ]);
    return changed;
  }

  /** Each row in units of its largest magnitude / 127. */
  #scaleRows(value: Value, form: Form): Value {
    const { rows, width } = value, scales = this.#take(rows, 1), changed = { ...this.#like(value, form), scales };
    const from = value.memory.floats, to = changed.memory.int8s, { floats } = scales;
    this.#calls.push(() => scaleRows(from, to, floats, rows, width));
    return changed;
  }

  /** What the numbers of a form stand for, as arguments: for primitives that round to them. */
  #units(form: Form): [arg: number, memory: Handle][] {
    if (form.type !== DataType.uint8) return [];
    return [
      [Arg.scaleOf + Arg.destination, this.#library.numbers(Float32Array.of(form.step))],
      [Arg.zeroOf + Arg.destination, this.#library.numbers(Int32Array.of(Math.round(-form.low / form.step)))],
    ];
  }

  #primitive(key: string, make: () => Primitive): Primitive {
    const { primitives } = this.shared;
    const known = primitives.get(key) ?? make();
    primitives.delete(key);
    primitives.set(key, known); // the last one used comes last
    if (primitives.size > MAX_PRIMITIVES) primitives.delete(primitives.keys().next().value!);
    return known;
  }

  #run(primitive: Primitive, list: readonly (readonly [arg: number, memory: Handle])[]): void {
    const library = this.#library, args = library.arguments(list);
    this.#calls.push(() => library.execute(primitive, args));
  }

  #memory({ memory, rows, width, form }: Value): Handle {
    return this.#library.memory(this.#library.describe([rows, width], form.type), memory.bytes);
  }

  #float(count: number, width: number): Value {
    return { ...this.#numbers(Math.max(count, LEAST_ROWS), width, FLOAT), count };
  }

  #like({ rows, count, width }: Value, form: Form): Value {
    return { ...this.#numbers(rows, width, form), count };
  }

  #numbers(rows: number, width: number, form: Form): Omit<Value, "count"> {
    return { memory: this.#take(rows, width, BYTES[form.type]), form, rows, width };
  }

  /** Memory for numbers: the least that is free and large enough, or some of its own. */
  #take(rows: number, width: number, bytes = FLOAT_BYTES): HostMemory {
    const needed = rows * width * bytes;
    const [best] = this.#free.filter(({ byteLength }) => byteLength >= needed && byteLength <= 4 * needed + 4096)
      .sort((a, b) => a.byteLength - b.byteLength);
    if (best) {
      this.#free.splice(this.#free.indexOf(best), 1);
      return best;
    }
    const memory = new HostMemory(needed);
    this.shared.scratch.push(memory);
    return memory;
  }
}

/** What the mask adds to the score of a token that must not be seen. */
const HIDDEN = -1e9;

function sameForm(a: Form, b: Form): boolean {
  return a.type === b.type &&
    (a.type !== DataType.uint8 || b.type === DataType.uint8 && a.low === b.low && a.step === b.step);
}

/** What the tokens of a bucket are taken from. */
function wholeOf(qkv: Expression): Expression {
  return qkv.op === "tokensOf" ? qkv.x : qkv;
}

function floatsOf({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  return new Float32Array(buffer, byteOffset, byteLength / FLOAT_BYTES);
}

function addTo(sum: Float32Array, a: Float32Array, b: Float32Array, size: number): void {
  for (let i = 0; i < size; i++) sum[i] = a[i] + b[i];
}

function scaleRows(from: Float32Array, to: Int8Array, scales: Float32Array, rows: number, width: number): void {
  for (let row = 0; row < rows; row++) {
    const start = row * width;
    let largest = 0;
    for (let i = start; i < start + width; i++) largest = Math.max(largest, Math.abs(from[i]));
    scales[row] = largest / 127;
    const factor = largest > 0 ? 127 / largest : 0;
    for (let i = start; i < start + width; i++) to[i] = Math.round(from[i] * factor);
  }
}
