/** Weights of linear layers: in the type and the order in which oneDNN multiplies them. */

import type { Int8Weight } from "../backend/int8.ts";
import { HostMemory } from "./host_memory.ts";
import { Arg, type Attributes, DataType, type Handle, type Onednn, type Primitive } from "./library.ts";

/**
 * As what a layer takes its inputs: floats; numbers from 0 to 255, which stand for low, low + step, …; or int8 numbers, each row's
 * scaled to its largest magnitude.
 */
export type Form =
  | { type: typeof DataType.float32 | typeof DataType.bfloat16 | typeof DataType.int8 }
  | { type: typeof DataType.uint8; low: number; step: number };

/** What a weight is made of. */
export interface WeightSource {
  /** [K, M] row by row; [M, K] if `transposed`. */
  readonly values: Float32Array | Int8Array;
  readonly inputs: number;
  readonly outputs: number;
  readonly transposed: boolean;
  /** Where the weight is to be int8, what each column's numbers are to be multiplied by, [M]. */
  readonly scale: Float32Array | null;
}

/** As what a weight that is int8 already is stored. */
export function int8Source({ values, shape, axis, scale }: Int8Weight): WeightSource {
  const [inputs, outputs] = axis === 0 ? [shape[1], shape[0]] : shape;
  return { values, inputs, outputs, transposed: axis === 0, scale };
}

/** How a product differs from [rows, K]·[K, M] in float32. */
export interface ProductOptions {
  /** The type of its result. */
  to?: DataType;
  /** Whether it adds the bias. */
  bias?: boolean;
  /** What else it does. */
  attributes?: Attributes;
}

/** For so many rows the weight is packed at first. */
const ROWS = 16;

/** A weight [K, M] with its bias. */
export class Weight {
  /** K. */
  readonly inputs: number;
  /** M. */
  readonly outputs: number;
  /** Of its numbers. */
  readonly type: DataType;
  /** [1, M]. Inputs in a range begin at its low end: what a product lacks for that is in here. */
  readonly bias: Handle;
  /** What products are multiplied by, [M]; null where weights are floats. */
  readonly scales: Handle | null;
  readonly #packed: { description: Handle; memory: Handle; keep: HostMemory }[] = [];

  /** Copies what it is made of. Without a bias, one of zeros. */
  constructor(
    private readonly library: Onednn,
    source: WeightSource,
    bias: Float32Array | null,
    /** How it takes its inputs. */
    readonly form: Form,
  ) {
    const { inputs, outputs, scale } = source;
    this.inputs = inputs;
    this.outputs = outputs;
    this.type = scale ? DataType.int8 : form.type;
    this.scales = scale && this.#row(form.type === DataType.uint8 ? scale.map((scale) => scale * form.step) : scale);
    const { description, memory, keep } = this.#numbers(source);
    this.#pack(this.product(ROWS).weights, memory, description);
    keep.free();
    this.bias = this.#row(this.#biasWith(bias ?? new Float32Array(outputs)), [1, outputs]);
  }

  /** A product of so many rows with it: [rows, K] -> [rows, M]. */
  product(rows: number, { to = DataType.float32, bias = false, attributes = {} }: ProductOptions = {}): Primitive {
    const { library, inputs, outputs } = this, { scales = [] } = attributes;
    return library.matmul(
      library.describe([rows, inputs], this.form.type),
      library.describeAny([inputs, outputs], this.type),
      bias ? library.describe([1, outputs], DataType.float32) : null,
      library.describe([rows, outputs], to),
      { ...attributes, scales: this.scales ? [[Arg.weights, 1 << 1], ...scales] : scales }, // one for each column
    );
  }

  /** What a product takes of it, besides the bias. */
  arguments({ weights }: Primitive): [arg: number, memory: Handle][] {
    const numbers: [number, Handle] = [Arg.weights, this.#lyingAs(weights)];
    return this.scales ? [numbers, [Arg.scaleOf + Arg.weights, this.scales]] : [numbers];
  }

  /** Products of so many rows, without the bias, which need nothing but their numbers: in `given`, as the weight takes them. */
  prepare(rows: number): { given: HostMemory; sums: HostMemory; run(): void } {
    const { library, inputs, outputs } = this, product = this.product(rows);
    const from = library.describe([rows, inputs], this.form.type);
    const to = library.describe([rows, outputs], DataType.float32);
    const [given, sums] = [from, to].map((description) => new HostMemory(library.bytesOf(description)));
    const args = library.arguments([
      [Arg.source, library.memory(from, given.bytes)],
      [Arg.destination, library.memory(to, sums.bytes)],
      ...this.arguments(product),
    ]);
    return { given, sums, run: () => library.execute(product, args) };
  }

  /** Frees it. Nothing may use it any more. */
  dispose(): void {
    for (const { keep } of this.#packed.splice(0)) keep.free();
  }

  /** The numbers, lying as a product wants them. */
  #lyingAs(description: Handle): Handle {
    const known = this.#packed.find((packed) => this.library.same(packed.description, description));
    const [first] = this.#packed;
    return known?.memory ?? this.#pack(description, first.memory, first.description);
  }

  /** The source's numbers as they lie there, in the type of the weight. */
  #numbers({ values, inputs, outputs, transposed, scale }: WeightSource) {
    const { library } = this, dimensions = [inputs, outputs], strides = transposed ? [1, inputs] : [outputs, 1];
    const [type, given] = [this.type, values instanceof Int8Array ? DataType.int8 : DataType.float32];
    const described = {
      given: library.describe(dimensions, given, strides),
      own: library.describe(dimensions, type, strides),
    };
    const keep = HostMemory.of(values), memory = library.memory(described.given, keep.bytes);
    if (type === given) return { description: described.own, memory, keep };
    const changed = new HostMemory(library.bytesOf(described.own)), into = library.memory(described.own, changed.bytes);
    const args: [number, Handle][] = [[Arg.source, memory], [Arg.destination, into]];
    const attributes: Attributes = scale ? { scales: [[Arg.destination, 1 << 1]] } : {};
    if (scale) args.push([Arg.scaleOf + Arg.destination, this.#row(scale)]);
    library.execute(library.reorder(described.given, described.own, attributes), library.arguments(args));
    keep.free();
    return { description: described.own, memory: into, keep: changed };
  }

  #pack(description: Handle, memory: Handle, from: Handle): Handle {
    const { library } = this, keep = new HostMemory(library.bytesOf(description));
    const packed = library.memory(description, keep.bytes);
    const args = library.arguments([[Arg.source, memory], [Arg.destination, packed]]);
    library.execute(library.reorder(from, description), args);
    this.#packed.push({ description, memory: packed, keep });
    return packed;
  }

  /** The bias, and what every column lacks that is multiplied by numbers from 0 on instead of from low on: low · Σ weight. */
  #biasWith(bias: Float32Array): Float32Array {
    if (this.form.type !== DataType.uint8) return bias;
    const { low, step } = this.form, { given, sums, run } = this.prepare(ROWS);
    given.bytes.fill(1);
    run();
    const each = sums.floats; // step · Σ weight
    return bias.map((bias, column) => bias + low / step * each[column]);
  }

  #row(values: Float32Array, dimensions = [values.length]): Handle {
    return this.library.numbers(values, dimensions);
  }
}
