/**
 * A step for certain sizes: the calls that compute it, in order. Each takes in what oneDNN can do in one go: a product with its bias,
 * GELU, the sum with the residual stream, and the rounding to the type in which the next product reads.
 */

import type * as tf from "@tensorflow/tfjs";
import { type Bucket, type Expression as Recorded, partsOf } from "../backend/expression.ts";
import { HostMemory } from "./host_memory.ts";
import { Arg, DataType, type Handle, type Onednn, type PostOp, type Primitive } from "./library.ts";
import type { Form, Weight } from "./weight.ts";

/** A step's graph. */
export type Expression = Recorded<Weight>;

/** Integers that a step is fed, by the numbers of its inputs. */
export type Integers = ReadonlyMap<number, Int32Array>;

/**
 * The caches of a bucket, by the number of the input that they are: for each layer its keys and its values, one after the other, whose
 * first cells are [R, H, S, D/H].
 */
export type CacheBytes = ReadonlyMap<number, readonly Uint8Array<ArrayBuffer>[]>;

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

/** What the calls of a step depend on. */
export interface Sizes {
  /** N. */
  readonly tokens: number;
  /** M. */
  readonly wanted: number;
  /** By the input that holds a bucket's positions. */
  readonly buckets: ReadonlyMap<number, BucketSizes>;
}

/** What they depend on in a bucket. */
export interface BucketSizes {
  /** S. */
  readonly slots: number;
  readonly runs: readonly Run[];
}

/** One result of a step. */
export interface Output {
  readonly op: "argMax" | "maxLogprob" | "logits";
  /** [M, V]: logits, or for `maxLogprob` the probabilities. */
  readonly values: HostMemory;
  readonly width: number;
  /** [M]: the largest of each row. */
  readonly largest: HostMemory;
}

/** A step, ready to run. */
export interface Program {
  /** Has it use these caches from now on. */
  bind(caches: CacheBytes): void;
  readonly calls: readonly ((integers: Integers) => void)[];
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
export function makeProgram(shared: Shared, outputs: readonly Expression[], sizes: Sizes): Program {
  return new Planner(shared, sizes, outputs).program(outputs);
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
  readonly #calls: ((integers: Integers) => void)[] = [];
  readonly #binds: ((caches: CacheBytes) => void)[] = [];
  /** What was made of each expression, in the forms that were asked for. */
  readonly #values = new Map<Expression, Value[]>();
  /** How often an expression's value is still going to be read. */
  readonly #uses = new Map<Expression, number>();
  readonly #masks = new Map<Run, Handle>();
  readonly #free: HostMemory[];

  constructor(
    private readonly shared: Shared,
    private readonly sizes: Sizes,
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
      if (output.op === "argMax") return this.#largest(output.op, this.#value(output.logits, FLOAT));
      if (output.op === "maxLogprob") return this.#largest(output.op, this.#probabilities(output.logits));
      const { memory, width } = this.#value(output, FLOAT);
      return { op: "logits", values: memory, width, largest: memory };
    });
    const binds = this.#binds;
    return { bind: (caches) => binds.forEach((bind) => bind(caches)), calls: this.#calls, outputs: made };
  }

  #largest(op: Output["op"], values: Value): Output {
    const { memory, rows, width } = values, largest = this.#float(values.count, 1), library = this.#library;
    const max = this.#primitive(`max ${[rows, width]}`, () => {
      const [all, one] = [width, 1].map((width) => library.describe([rows, width], DataType.float32));
      return library.max(all, one);
    });
    this.#run(max, [[Arg.source, this.#memory(values)], [Arg.destination, this.#memory(largest)]]);
    return { op, values: memory, width, largest: largest.memory };
  }

  #probabilities(expression: Expression): Value {
    const logits = this.#value(expression, FLOAT), probabilities = this.#like(logits, FLOAT);
    const shape = [logits.rows, logits.width];
    const softmax = this.#primitive(
      `softmax ${shape}`,
      () => this.#library.softmax(this.#library.describe(shape, DataType.float32), 1),
    );
    this.#run(softmax, [[Arg.source, this.#memory(logits)], [Arg.destination, this.#memory(probabilities)]]);
    return probabilities;
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
    this.#calls.push((integers) => {
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
    const { form: taken, inputs, outputs } = weight, input = this.#value(x, taken), { rows, scales } = input;
    const value = onto ?? { ...this.#numbers(rows, outputs, form), count: input.count }, library = this.#library;
    const then: PostOp[] = [...gelu ? [{ op: "gelu" } as const] : [], ...onto ? [{ op: "sum" } as const] : []];
    if (scales) this.#scaledProduct(input, weight, value, scales, then);
    else {
      const ranged = form.type === DataType.uint8, bias = library.describe([1, outputs], DataType.float32);
      const key = [rows, inputs, outputs, taken.type, form.type, weight.type, gelu, onto !== null];
      const product = this.#primitive(`product ${key}`, () =>
        library.matmul(
          library.describe([rows, inputs], taken.type),
          library.describeAny([inputs, outputs], weight.type),
          bias,
          library.describe([rows, outputs], form.type),
          {
            scales: ranged ? [...weight.attributes.scales, [Arg.destination, 0]] : weight.attributes.scales,
            zeros: ranged ? [Arg.destination] : [],
            then,
          },
        ));
      this.#run(product, [
        [Arg.source, this.#memory(input)],
        [Arg.weights, weight.lyingAs(product.weights)],
        [Arg.bias, weight.bias],
        [Arg.destination, this.#memory(value)],
        ...weight.scaleArguments,
        ...this.#units(form),
      ]);
    }
    this.#read(x);
    return value;
  }

  /** Of rows that have scales of their own: two calls, because oneDNN multiplies slowly if it is to scale rows too. */
  #scaledProduct(input: Value, weight: Weight, value: Value, scales: HostMemory, then: readonly PostOp[]): void {
    const { inputs, outputs } = weight, { rows, form } = input, library = this.#library, { float32 } = DataType;
    const raw = this.#like(value, FLOAT), numbers = library.describe([rows, outputs], float32);
    const each = library.describe([rows, 1], float32), bias = library.describe([1, outputs], float32);
    const product = this.#primitive(`scaled product ${[rows, inputs, outputs]}`, () =>
      library.matmul(
        library.describe([rows, inputs], form.type),
        library.describeAny([inputs, outputs], weight.type),
        null,
        numbers,
        weight.attributes,
      ));
    const multiply = this.#primitive(
      `multiply ${[rows, outputs, ...then.map(({ op }) => op)]}`,
      () => library.multiply(numbers, each, numbers, { then: [{ op: "add", to: bias }, ...then] }),
    );
    this.#run(product, [
      [Arg.source, this.#memory(input)],
      [Arg.weights, weight.lyingAs(product.weights)],
      [Arg.destination, this.#memory(raw)],
      ...weight.scaleArguments,
    ]);
    this.#run(multiply, [
      [Arg.source, this.#memory(raw)],
      [Arg.factor, library.memory(each, scales.bytes)],
      [Arg.destination, this.#memory(value)],
      [Arg.operand(0), weight.bias],
    ]);
    this.#free.push(raw.memory);
  }

  #pick({ x, rows }: Expression & { op: "pick" }): Value {
    const all = this.#value(x, FLOAT), value = this.#float(this.sizes.wanted, all.width), { width, count } = value;
    const from = all.memory.floats, to = value.memory.floats;
    this.#calls.push((integers) => {
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
    for (const { bucket, layer } of attends) {
      const { slots, runs } = this.sizes.buckets.get(bucket.positions)!;
      const place: Place = { qkv, value, heads, size, bucket, layer, slots, first };
      for (const run of runs) {
        if (run.aligned) this.#writeAligned(place, run);
        else this.#writeRows(place, run);
      }
      for (const run of runs) this.#attendRun(place, run);
      first += runs.reduce((sum, { rows, tokens }) => sum + rows * tokens, 0);
    }
    for (const { qkv: part } of attends) {
      this.#read(whole);
      if (part !== whole) this.#read(part);
    }
    return value;
  }

  /** Puts tokens' keys and values where their positions say, which are the same in all rows: one call each. */
  #writeAligned({ qkv, heads: H, size, bucket, layer, slots: all, first }: Place, run: Run): void {
    const { rows: R, tokens: T } = run, D = H * size, library = this.#library, { float32 } = DataType;
    const given = library.describe([R, H, T, size], float32, [3 * D * T, size, 3 * D, 1]);
    const kept = library.describe([R, H, T, size], float32, [all * D, all * size, size, 1]);
    const copy = this.#primitive(`write ${[R, H, T, size, all]}`, () => library.reorder(given, kept));
    for (const [i, part] of [2 * layer, 2 * layer + 1].entries()) {
      const from = library.memory(given, partOf(qkv, first + run.first).subarray((i + 1) * D * FLOAT_BYTES));
      const to = library.memory(kept, NOWHERE), args = library.arguments([[Arg.source, from], [Arg.destination, to]]);
      let cache = NOWHERE;
      this.#binds.push((caches) => cache = caches.get(bucket.caches[0])![part]);
      this.#calls.push((integers) => {
        const place = run.row * D * all + integers.get(bucket.positions)![run.first] * size;
        library.move(to, cache.subarray(place * FLOAT_BYTES));
        library.execute(copy, args);
      });
    }
  }

  /** The same where they are not. */
  #writeRows({ qkv, heads, size, bucket, layer, slots: all, first }: Place, run: Run): void {
    const from = qkv.memory.floats, D = heads * size, caches: Float32Array[] = [], { row, rows, tokens } = run;
    this.#binds.push((bytes) =>
      [0, 1].forEach((i) => caches[i] = floatsOf(bytes.get(bucket.caches[0])![2 * layer + i]))
    );
    this.#calls.push((integers) => {
      const at = integers.get(bucket.positions)!;
      for (let i = 0; i < rows * tokens; i++) {
        const token = run.first + i, own = (first + token) * 3 * D;
        const to = (row + Math.floor(i / tokens)) * D * all + at[token] * size;
        copyHeads(caches[0], to, from, own + D, heads, size, all * size);
        copyHeads(caches[1], to, from, own + 2 * D, heads, size, all * size);
      }
    });
  }

  #attendRun({ qkv, value, heads: H, size, bucket, layer, slots: all, first }: Place, run: Run): void {
    const { rows: R, tokens: T, slots: S } = run, library = this.#library, D = H * size, start = first + run.first;
    const { float32 } = DataType, key = `${[R, H, T, S, size, all]}`;
    const scores = this.#take(R * H * T, S), scoresShape = library.describe([R, H, T, S], float32);
    const queries = library.describe([R, H, T, size], float32, [3 * D * T, size, 3 * D, 1]);
    const keys = library.describe([R, H, size, S], float32, [all * D, all * size, 1, size]);
    const values = library.describe([R, H, S, size], float32, [all * D, all * size, size, 1]);
    const sums = library.describe([R, H, T, size], float32, [D * T, size, D, 1]);
    const maskShape = library.describe([R, 1, T, S], float32);
    const multiply = this.#primitive(
      `scores ${key}`,
      () => library.matmul(queries, keys, null, scoresShape, { then: [{ op: "add", to: maskShape }] }),
    );
    const softmax = this.#primitive(`softmax ${[R, H, T, S]}`, () => library.softmax(scoresShape, 3));
    const weigh = this.#primitive(`weigh ${key}`, () => library.matmul(scoresShape, values, null, sums));
    const scored = library.memory(scoresShape, scores.bytes);
    this.#run(multiply, [
      [Arg.source, library.memory(queries, partOf(qkv, start))],
      [Arg.weights, this.#cache(keys, bucket, 2 * layer, run.row * all * D)],
      [Arg.destination, scored],
      [Arg.operand(0), this.#mask(run, bucket, maskShape)],
    ]);
    this.#run(softmax, [[Arg.source, scored], [Arg.destination, scored]]);
    this.#run(weigh, [
      [Arg.source, scored],
      [Arg.weights, this.#cache(values, bucket, 2 * layer + 1, run.row * all * D)],
      [Arg.destination, library.memory(sums, partOf(value, start))],
    ]);
    this.#free.push(scores);
  }

  /** Part of a cache, from so many numbers on. Where that is the program is told later. */
  #cache(shape: Handle, { caches: [input] }: Bucket, part: number, first: number): Handle {
    const library = this.#library, memory = library.memory(shape, NOWHERE);
    this.#binds.push((bytes) => library.move(memory, bytes.get(input)![part].subarray(first * FLOAT_BYTES)));
    return memory;
  }

  /** What is added to the scores, [R, 1, T, S]: 0 for the slots up to a token's own, a large negative number beyond. Once for all layers. */
  #mask(run: Run, { positions }: Bucket, shape: Handle): Handle {
    const known = this.#masks.get(run);
    if (known) return known;
    const { rows, tokens, slots, first } = run, memory = this.#take(rows * tokens, slots), { floats } = memory;
    this.#calls.push((integers) => {
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

/** Where a bucket attends: its tokens among the step's, and its caches. */
interface Place {
  /** [N, 3·D] */
  readonly qkv: Value;
  /** [N, D], what comes of it. */
  readonly value: Value;
  readonly heads: number;
  /** D/H. */
  readonly size: number;
  readonly bucket: Bucket;
  readonly layer: number;
  /** S. */
  readonly slots: number;
  /** The bucket's first token. */
  readonly first: number;
}

/** What stands for caches until they are known. */
const NOWHERE: Uint8Array<ArrayBuffer> = new Uint8Array(1);

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

/** The rows from `first` on. */
function partOf({ memory, width }: Value, first: number): Uint8Array<ArrayBuffer> {
  return memory.bytes.subarray(first * width * FLOAT_BYTES);
}

/** A token's heads, which lie side by side, to their rows in a cache. In a loop: a head is too short for copies of memory to pay. */
function copyHeads(
  to: Float32Array,
  first: number,
  from: Float32Array,
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
