/** A list of calls in the making: their primitives, and the memory in which one leaves what others read. */

import type * as tf from "@tensorflow/tfjs";
import type { Expression } from "../backend/expression.ts";
import { HostMemory } from "./host_memory.ts";
import { DataType, type Handle, type Onednn, type Primitive } from "./library.ts";
import type { Form, Weight } from "./weight.ts";

/** Integers that a step is fed, by the numbers of its inputs. */
export type Integers = ReadonlyMap<number, Int32Array>;

/**
 * The caches of a bucket, by the number of the input that they are: for each layer its keys and its values, one after the other, whose
 * first cells are [R, H, S, D/H].
 */
export type CacheBytes = ReadonlyMap<number, readonly Uint8Array<ArrayBuffer>[]>;

/** One thing that a step does. */
export interface Call {
  /** Where in the model it is, and what it does: `h.0/attn/product`. */
  readonly name: string;
  /** True for a primitive, whose work all threads share. */
  readonly shared: boolean;
  /** Does it. */
  run(integers: Integers): void;
}

/** What programs share. */
export interface Shared {
  readonly library: Onednn;
  /** By what they compute, and for which shapes. */
  readonly primitives: Map<string, Primitive>;
  /** The numbers of a tensor that the model holds. */
  valuesOf(tensor: tf.Tensor): Float32Array;
  /** Where in the model an expression is: `h.0/attn/`. */
  placeOf(expression: Expression<Weight>): string;
  /** Memory that programs use while they run: one at a time. */
  readonly scratch: HostMemory[];
  /** Gains and biases of layer norms, by the tensor of the gain and the form of the result. */
  readonly norms: WeakMap<object, Map<string, { gain: Handle; shift: Handle }>>;
}

/** Products of fewer rows take longer than those of so many, which other rows of zeros make up. */
const LEAST_ROWS = 4;
/** Primitives that are kept. */
const MAX_PRIMITIVES = 2048;

/** float32, as products take and give it. */
export const FLOAT: Form = { type: DataType.float32 };
/** Of a float32 number. */
export const FLOAT_BYTES = Float32Array.BYTES_PER_ELEMENT;

/** Of a number. */
export const BYTES: Readonly<Record<DataType, number>> = {
  [DataType.bfloat16]: 2,
  [DataType.float32]: 4,
  [DataType.int32]: 4,
  [DataType.int8]: 1,
  [DataType.uint8]: 1,
};

/** Numbers [rows, width], of which the first `count` rows are the step's. */
export interface Value {
  readonly memory: HostMemory;
  readonly form: Form;
  readonly rows: number;
  readonly count: number;
  readonly width: number;
  /** Of int8 numbers: what each row's are to be multiplied by, [rows, 1]. */
  readonly scales?: HostMemory;
}

/** The plan of one program. */
export class Plan {
  readonly library: Onednn;
  /** What was planned so far, in order. */
  readonly calls: Call[] = [];
  /** Where in the model the next ones are. */
  place = "";
  /** What is to be done when caches are known. */
  readonly binds: ((caches: CacheBytes) => void)[] = [];
  readonly #free: HostMemory[];

  constructor(private readonly shared: Shared) {
    this.library = shared.library;
    this.#free = [...shared.scratch];
  }

  /** The primitive of that name: made once for each number of threads. */
  primitive(name: string, make: () => Primitive): Primitive {
    const { primitives, library: { threads } } = this.shared, key = `${name} on ${threads}`;
    const known = primitives.get(key) ?? make();
    primitives.delete(key);
    primitives.set(key, known); // the last one used comes last
    if (primitives.size > MAX_PRIMITIVES) primitives.delete(primitives.keys().next().value!);
    return known;
  }

  /** Plans something that is done here. */
  add(op: string, run: (integers: Integers) => void, shared = false): void {
    this.calls.push({ name: `${this.place}${op}`, shared, run });
  }

  /** Plans a call of a primitive. */
  call(op: string, primitive: Primitive, list: readonly (readonly [arg: number, memory: Handle])[]): void {
    const { library } = this, args = library.arguments(list);
    this.add(op, () => library.execute(primitive, args), true);
  }

  /** A value as an argument. */
  argument({ memory, rows, width, form }: Value): Handle {
    return this.library.memory(this.library.describe([rows, width], form.type), memory.bytes);
  }

  /** Room for `count` rows of float32 numbers. */
  floats(count: number, width: number): Value {
    return { ...this.numbers(Math.max(count, LEAST_ROWS), width, FLOAT), count };
  }

  /** Room for as many numbers as a value has. */
  like({ rows, count, width }: Value, form: Form): Value {
    return { ...this.numbers(rows, width, form), count };
  }

  /** Room for numbers of a form. */
  numbers(rows: number, width: number, form: Form): Omit<Value, "count"> {
    return { memory: this.take(rows * width * BYTES[form.type]), form, rows, width };
  }

  /** Memory of so many bytes: the least that is free and large enough, or some of its own. */
  take(bytes: number): HostMemory {
    const [best] = this.#free.filter(({ byteLength }) => byteLength >= bytes && byteLength <= 4 * bytes + 4096)
      .sort((a, b) => a.byteLength - b.byteLength);
    if (best) {
      this.#free.splice(this.#free.indexOf(best), 1);
      return best;
    }
    const memory = new HostMemory(bytes);
    this.shared.scratch.push(memory);
    return memory;
  }

  /** Nobody reads this any more: what is planned from now on may be written there. */
  release(memory: HostMemory): void {
    if (!this.#free.includes(memory)) this.#free.push(memory);
  }
}
