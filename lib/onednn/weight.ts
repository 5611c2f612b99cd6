/** Weights of linear layers: in the type and the order in which oneDNN multiplies them. */

import type { Int8Weight } from "../backend/int8.ts";
import { HostMemory } from "./host_memory.ts";
import { Arg, type Attributes, DataType, type Handle, type Onednn } from "./library.ts";

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
    const product = this.#product({});
    this.#pack(product.weights, memory, description);
    keep.free();
    this.bias = this.#row(this.#biasWith(bias ?? new Float32Array(outputs), source.scale), [1, outputs]);
  }

  /** The numbers, lying as a product wants them. */
  lyingAs(description: Handle): Handle {
    const known = this.#packed.find((packed) => this.library.same(packed.description, description));
    const [first] = this.#packed;
    return known?.memory ?? this.#pack(description, first.memory, first.description);
  }

  /** What a product must know of it: its scales. */
  get attributes(): Required<Pick<Attributes, "scales">> {
    return { scales: this.scales ? [[Arg.weights, 1 << 1]] : [] }; // one for each column
  }

  /** And where these are. */
  get scaleArguments(): [arg: number, memory: Handle][] {
    return this.scales ? [[Arg.scaleOf + Arg.weights, this.scales]] : [];
  }

  /** Frees it. Nothing may use it any more. */
  dispose(): void {
    for (const { keep } of this.#packed.splice(0)) keep.free();
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

  /** The bias, and low · Σ weight of each column: the products of a row of ones. */
  #biasWith(bias: Float32Array, scale: Float32Array | null): Float32Array {
    const { library, form } = this;
    if (form.type !== DataType.uint8) return bias;
    const product = this.#product(this.attributes), ones = new HostMemory(ROWS * this.inputs);
    const sums = new HostMemory(ROWS * this.outputs * Float32Array.BYTES_PER_ELEMENT);
    ones.bytes.fill(1);
    library.execute(
      product,
      library.arguments([
        [Arg.source, library.memory(library.describe([ROWS, this.inputs], form.type), ones.bytes)],
        [Arg.weights, this.lyingAs(product.weights)],
        [Arg.destination, library.memory(library.describe([ROWS, this.outputs], DataType.float32), sums.bytes)],
        [Arg.scaleOf + Arg.weights, this.#row(scale!)],
      ]),
    );
    const each = sums.floats;
    return bias.map((bias, column) => bias + form.low * each[column]);
  }

  #product(attributes: Attributes) {
    const { library, inputs, outputs } = this;
    return library.matmul(
      library.describe([ROWS, inputs], this.form.type),
      library.describeAny([inputs, outputs], this.type),
      null,
      library.describe([ROWS, outputs], DataType.float32),
      attributes,
    );
  }

  #row(values: Float32Array, dimensions = [values.length]): Handle {
    return this.library.numbers(values, dimensions);
  }
}
