/**
 * A step for certain sizes: the calls that compute it, in order. Each takes in what oneDNN can do in one go: a product with its bias,
 * GELU, the sum with the residual stream, and the rounding to the type in which the next product reads.
 */

import type * as tf from "@tensorflow/tfjs";
import { type Expression as Recorded, partsOf } from "../backend/expression.ts";
import { AttentionPlanner, type BucketSizes, cachedType } from "./attention.ts";
import type { HostMemory } from "./host_memory.ts";
import { Arg, type Attributes, DataType, type Handle, type PostOp } from "./library.ts";
import { type CacheBytes, type Call, FLOAT, FLOAT_BYTES, Plan, type Shared, type Value } from "./plan.ts";
import type { Form, Weight } from "./weight.ts";

/** A step's graph. */
export type Expression = Recorded<Weight>;

/** What the calls of a step depend on. */
export interface Sizes {
  /** N. */
  readonly tokens: number;
  /** M. */
  readonly wanted: number;
  /** By the input that holds a bucket's positions. */
  readonly buckets: ReadonlyMap<number, BucketSizes>;
}

/** One result of a step: logits; or with each row's largest of them, or of their probabilities. */
export type Output =
  /** [M, V] */
  | { op: "logits"; values: Value }
  /** [M, V] and [M, 1] */
  | { op: "argMax" | "maxLogprob"; values: Value; largest: Value };

/** A step, ready to run. */
export interface Program {
  /** Has it use these caches from now on. */
  bind(caches: CacheBytes): void;
  readonly calls: readonly Call[];
  readonly outputs: readonly Output[];
}

/** Makes the calls. Throws an error for a graph that they cannot compute. */
export function makeProgram(shared: Shared, outputs: readonly Expression[], sizes: Sizes): Program {
  return new Planner(shared, sizes, outputs).program(outputs);
}

class Planner {
  readonly #plan: Plan;
  readonly #attention: AttentionPlanner;
  /** What was made of each expression, in the forms that were asked for. */
  readonly #values = new Map<Expression, Value[]>();
  /** How often an expression's value is still going to be read. */
  readonly #uses = new Map<Expression, number>();

  constructor(
    private readonly shared: Shared,
    private readonly sizes: Sizes,
    outputs: readonly Expression[],
  ) {
    this.#plan = new Plan(shared);
    this.#attention = new AttentionPlanner(this.#plan);
    const count = (expression: Expression) => {
      const uses = this.#uses.get(expression) ?? 0;
      this.#uses.set(expression, uses + 1);
      if (uses === 0) partsOf(expression).forEach(count);
    };
    outputs.forEach(count);
  }

  program(outputs: readonly Expression[]): Program {
    const made = outputs.map((output) => this.#at(output, () => this.#output(output)));
    const { binds, calls } = this.#plan;
    return { bind: (caches) => binds.forEach((bind) => bind(caches)), calls, outputs: made };
  }

  #output(output: Expression): Output {
    if (output.op === "argMax") return this.#largest(output.op, this.#value(output.logits, FLOAT));
    if (output.op === "maxLogprob") return this.#largest(output.op, this.#probabilities(output.logits));
    return { op: "logits", values: this.#value(output, FLOAT) };
  }

  #largest(op: "argMax" | "maxLogprob", values: Value): Output {
    const plan = this.#plan, { library } = plan, { rows, width } = values, largest = plan.floats(values.count, 1);
    const max = plan.primitive(`max ${[rows, width]}`, () => {
      const [all, one] = [width, 1].map((width) => library.describe([rows, width], DataType.float32));
      return library.max(all, one);
    });
    plan.call("max", max, [[Arg.source, plan.argument(values)], [Arg.destination, plan.argument(largest)]]);
    return { op, values, largest };
  }

  #probabilities(expression: Expression): Value {
    const plan = this.#plan, { library } = plan, logits = this.#value(expression, FLOAT);
    const probabilities = plan.like(logits, FLOAT), shape = [logits.rows, logits.width];
    const softmax = plan.primitive(`softmax ${shape}`, () => {
      const floats = library.describe(shape, DataType.float32);
      return library.softmax(floats, floats, 1);
    });
    const [from, to] = [logits, probabilities].map((value) => plan.argument(value));
    plan.call("softmax", softmax, [[Arg.source, from], [Arg.destination, to]]);
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
    return float ?? this.#at(expression, () => this.#compute(expression, form));
  }

  /** What `make` plans is where the expression is in the model. */
  #at<T>(expression: Expression, make: () => T): T {
    const plan = this.#plan, { place } = plan;
    plan.place = this.shared.placeOf(expression);
    const made = make();
    plan.place = place;
    return made;
  }

  #compute(expression: Expression, form: Form): Value {
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
      this.#plan.release(memory);
      if (scales) this.#plan.release(scales);
    }
    this.#values.delete(expression);
  }

  #embed({ table, ids }: Expression & { op: "embed" }): Value {
    const [, width] = table.shape, value = this.#plan.floats(this.sizes.tokens, width), { floats } = value.memory;
    const rows = this.shared.valuesOf(table);
    this.#plan.add("embed", (integers) => {
      integers.get(ids)!.forEach((id, i) => floats.set(rows.subarray(id * width, (id + 1) * width), i * width));
      floats.fill(0, value.count * width, value.rows * width);
    });
    return value;
  }

  #add({ a, b }: Expression & { op: "add" }): Value {
    const left = this.#value(a, FLOAT);
    if (b.op === "linear") this.#at(b, () => this.#value(b.x, b.weight.form)); // which may read a
    // Into the residual stream, if nobody wants what it was before: the product adds to what it finds.
    if (b.op === "linear" && this.#uses.get(a) === 1 && this.#uses.get(b) === 1) {
      const sum = this.#at(b, () => this.#linear(b, FLOAT, left));
      this.#uses.set(a, 0);
      this.#values.delete(a);
      return sum;
    }
    const right = this.#value(b, FLOAT), sum = this.#plan.floats(left.count, left.width);
    const [x, y, z] = [left, right, sum].map(({ memory }) => memory.floats), size = sum.rows * sum.width;
    this.#plan.add("add", () => addTo(z, x, y, size));
    this.#read(a);
    this.#read(b);
    return sum;
  }

  #layerNorm({ x, gain, bias, epsilon }: Expression & { op: "layerNorm" }, form: Form): Value {
    const plan = this.#plan, { library } = plan, input = this.#value(x, FLOAT), shape = [input.rows, input.width];
    const value = plan.like(input, form.type === DataType.int8 ? FLOAT : form), { type } = value.form;
    const norm = plan.primitive(`norm ${[...shape, type, epsilon]}`, () => {
      const [from, to] = [DataType.float32, type].map((type) => library.describe(shape, type));
      return library.layerNorm(from, to, epsilon);
    });
    const { gain: factors, shift } = this.#norm(gain, bias, value.form);
    plan.call("norm", norm, [
      [Arg.source, plan.argument(input)],
      [Arg.destination, plan.argument(value)],
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
        gain: this.#plan.library.numbers(Float32Array.from(factors, (x) => x / step)),
        shift: this.#plan.library.numbers(Float32Array.from(shifts, (x) => (x - low) / step)),
      };
      forms.set(key, norm);
    }
    return norm;
  }

  /** In that form; or added to `onto`, which is float32. */
  #linear({ x, weight, gelu }: Expression & { op: "linear" }, form: Form, onto: Value | null): Value {
    const plan = this.#plan, input = this.#value(x, weight.form), { rows, count, scales } = input;
    const value = onto ?? { ...plan.numbers(rows, weight.outputs, scales ? FLOAT : form), count };
    const then: PostOp[] = [...gelu ? [{ op: "gelu" } as const] : [], ...onto ? [{ op: "sum" } as const] : []];
    if (scales) this.#scaledProduct(input, weight, value, scales, then);
    else {
      const { inputs, outputs, type } = weight, to = form.type;
      const key = [rows, inputs, outputs, weight.form.type, type, to, gelu, !!onto];
      const attributes = { ...inUnitsOf(form), then };
      const product = plan.primitive(`product ${key}`, () => weight.product(rows, { to, bias: true, attributes }));
      plan.call("product", product, [
        [Arg.source, plan.argument(input)],
        [Arg.bias, weight.bias],
        [Arg.destination, plan.argument(value)],
        ...weight.arguments(product),
        ...this.#units(form),
      ]);
    }
    this.#read(x);
    return value;
  }

  /** Of rows that have scales of their own: two calls, because oneDNN multiplies slowly if it is to scale rows too. */
  #scaledProduct(input: Value, weight: Weight, value: Value, scales: HostMemory, then: readonly PostOp[]): void {
    const plan = this.#plan, { library } = plan, { inputs, outputs } = weight, { rows } = input;
    const [numbers, each, bias] = [[rows, outputs], [rows, 1], [1, outputs]].map((shape) =>
      library.describe(shape, DataType.float32)
    );
    const product = plan.primitive(`scaled product ${[rows, inputs, outputs]}`, () => weight.product(rows));
    const multiply = plan.primitive(
      `multiply ${[rows, outputs, ...then.map(({ op }) => op)]}`,
      () => library.multiply(numbers, each, numbers, { then: [{ op: "add", to: bias }, ...then] }),
    );
    const raw = plan.like(value, FLOAT), sums = plan.argument(raw);
    const from = plan.argument(input);
    plan.call("product", product, [[Arg.source, from], [Arg.destination, sums], ...weight.arguments(product)]);
    plan.call("scale", multiply, [
      [Arg.source, sums],
      [Arg.factor, library.memory(each, scales.bytes)],
      [Arg.destination, plan.argument(value)],
      [Arg.operand(0), weight.bias],
    ]);
    plan.release(raw.memory);
  }

  #pick({ x, rows }: Expression & { op: "pick" }): Value {
    const all = this.#value(x, FLOAT), value = this.#plan.floats(this.sizes.wanted, all.width);
    const { width, count } = value;
    const from = all.memory.floats, to = value.memory.floats;
    this.#plan.add("pick", (integers) => {
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
    const type = cachedType(this.#plan.library, whole.weight.form.type);
    const qkv = this.#value(whole, { type }), value = this.#plan.floats(qkv.count, D);
    if (value.rows > value.count) {
      const { floats } = value.memory;
      this.#plan.add("fill", () => floats.fill(0, value.count * D, value.rows * D));
    }
    let first = 0; // of the bucket's tokens
    for (const { bucket, layer } of attends) {
      const sizes = this.sizes.buckets.get(bucket.positions)!;
      this.#attention.attend({ qkv, value, heads, size, bucket, layer, sizes, first });
      first += sizes.runs.reduce((sum, { rows, tokens }) => sum + rows * tokens, 0);
    }
    for (const { qkv: part } of attends) {
      this.#read(whole);
      if (part !== whole) this.#read(part);
    }
    return value;
  }

  /** float32 numbers in another form. */
  #convert(value: Value, form: Form): Value {
    if (form.type === DataType.int8) return this.#scaleRows(value, form);
    const plan = this.#plan, { library } = plan, changed = plan.like(value, form), shape = [value.rows, value.width];
    const reorder = plan.primitive(`reorder ${[...shape, form.type]}`, () => {
      const [from, to] = [DataType.float32, form.type].map((type) => library.describe(shape, type));
      return library.reorder(from, to, inUnitsOf(form));
    });
    plan.call("round", reorder, [
      [Arg.source, plan.argument(value)],
      [Arg.destination, plan.argument(changed)],
      ...this.#units(form),
    ]);
    return changed;
  }

  /** Each row in units of its largest magnitude / 127. */
  #scaleRows(value: Value, form: Form): Value {
    const plan = this.#plan, { rows, width } = value, scales = plan.take(rows * FLOAT_BYTES);
    const changed = { ...plan.like(value, form), scales };
    const from = value.memory.floats, to = changed.memory.int8s, { floats } = scales;
    plan.add("round", () => scaleRows(from, to, floats, rows, width));
    return changed;
  }

  /** And where that is. */
  #units(form: Form): [arg: number, memory: Handle][] {
    if (form.type !== DataType.uint8) return [];
    return [
      [Arg.scaleOf + Arg.destination, this.#plan.library.numbers(Float32Array.of(form.step))],
      [Arg.zeroOf + Arg.destination, this.#plan.library.numbers(Int32Array.of(Math.round(-form.low / form.step)))],
    ];
  }
}

/** What a primitive must know that rounds to numbers of a form. */
function inUnitsOf({ type }: Form): Attributes {
  return type === DataType.uint8 ? { scales: [[Arg.destination, 0]], zeros: [Arg.destination] } : {};
}

function sameForm(a: Form, b: Form): boolean {
  return a.type === b.type &&
    (a.type !== DataType.uint8 || b.type === DataType.uint8 && a.low === b.low && a.step === b.step);
}

/** The layer of which a bucket's queries, keys and values come. */
function wholeOf(qkv: Expression): Expression & { op: "linear" } {
  const whole = qkv.op === "tokensOf" ? qkv.x : qkv;
  if (whole.op !== "linear") throw new Error(`Cannot capture a step in which ${whole.op} attends.`);
  return whole;
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
