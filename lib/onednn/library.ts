/**
 * oneDNN through its C API: descriptions of numbers in memory, primitives that compute with them, and their execution.
 *
 * Source: `dnnl.h` and `dnnl_types.h` of oneDNN 3.2.
 */

import { pin } from "../util/pin.ts";
import { HostMemory } from "./host_memory.ts";

const pointer = "pointer", buffer = "buffer", i32 = "i32", f32 = "f32";

const symbols = {
  dnnl_version: { parameters: [], result: pointer },
  dnnl_get_effective_cpu_isa: { parameters: [], result: i32 },
  dnnl_engine_create: { parameters: [buffer, i32, "usize"], result: i32 },
  dnnl_stream_create: { parameters: [buffer, pointer, "u32"], result: i32 },

  dnnl_memory_desc_create_with_strides: { parameters: [buffer, i32, buffer, i32, buffer], result: i32 },
  dnnl_memory_desc_create_with_tag: { parameters: [buffer, i32, buffer, i32, i32], result: i32 },
  dnnl_memory_desc_clone: { parameters: [buffer, pointer], result: i32 },
  dnnl_memory_desc_equal: { parameters: [pointer, pointer], result: i32 },
  dnnl_memory_desc_get_size: { parameters: [pointer], result: "usize" },
  dnnl_memory_desc_destroy: { parameters: [pointer], result: i32 },
  dnnl_memory_create: { parameters: [buffer, pointer, pointer, pointer], result: i32 },
  dnnl_memory_set_data_handle: { parameters: [pointer, pointer], result: i32 },
  dnnl_memory_destroy: { parameters: [pointer], result: i32 },

  dnnl_primitive_attr_create: { parameters: [buffer], result: i32 },
  dnnl_primitive_attr_set_scales_mask: { parameters: [pointer, i32, i32], result: i32 },
  dnnl_primitive_attr_set_zero_points_mask: { parameters: [pointer, i32, i32], result: i32 },
  dnnl_primitive_attr_set_post_ops: { parameters: [pointer, pointer], result: i32 },
  dnnl_primitive_attr_destroy: { parameters: [pointer], result: i32 },
  dnnl_post_ops_create: { parameters: [buffer], result: i32 },
  dnnl_post_ops_append_sum: { parameters: [pointer, f32, i32, i32], result: i32 },
  dnnl_post_ops_append_eltwise: { parameters: [pointer, i32, f32, f32], result: i32 },
  dnnl_post_ops_append_binary: { parameters: [pointer, i32, pointer], result: i32 },
  dnnl_post_ops_destroy: { parameters: [pointer], result: i32 },

  dnnl_matmul_primitive_desc_create: {
    parameters: [buffer, pointer, pointer, pointer, pointer, pointer, pointer],
    result: i32,
  },
  dnnl_layer_normalization_forward_primitive_desc_create: {
    parameters: [buffer, pointer, i32, pointer, pointer, pointer, f32, "u32", pointer],
    result: i32,
  },
  dnnl_softmax_forward_primitive_desc_create: {
    parameters: [buffer, pointer, i32, i32, pointer, pointer, i32, pointer],
    result: i32,
  },
  dnnl_binary_primitive_desc_create: {
    parameters: [buffer, pointer, i32, pointer, pointer, pointer, pointer],
    result: i32,
  },
  dnnl_reduction_primitive_desc_create: {
    parameters: [buffer, pointer, i32, pointer, pointer, f32, f32, pointer],
    result: i32,
  },
  dnnl_reorder_primitive_desc_create: {
    parameters: [buffer, pointer, pointer, pointer, pointer, pointer],
    result: i32,
  },
  dnnl_primitive_desc_query_md: { parameters: [pointer, i32, i32], result: pointer },
  dnnl_primitive_desc_destroy: { parameters: [pointer], result: i32 },
  dnnl_primitive_create: { parameters: [buffer, pointer], result: i32 },
  dnnl_primitive_destroy: { parameters: [pointer], result: i32 },
  dnnl_primitive_execute: { parameters: [pointer, pointer, i32, pointer], result: i32 },
} as const;

/** The runtime that shares a primitive's work between threads. */
const OPENMP = "libgomp.so.1";
/**
 * How often a thread looks for more work before it sleeps: for about as long as a primitive of few rows takes. Who looks for longer
 * takes time from other programs, and then has none when there is work.
 */
const SPIN_COUNT = "2000";

/** `dnnl_data_type_t`. */
export const DataType = { bfloat16: 2, float32: 3, int32: 4, int8: 5, uint8: 6 } as const;

/** One of {@link DataType}. */
export type DataType = typeof DataType[keyof typeof DataType];

/** What a primitive's argument is to it: `DNNL_ARG_*`. */
export const Arg = {
  source: 1,
  factor: 2,
  destination: 17,
  weights: 33,
  bias: 41,
  gain: 51,
  shift: 52,
  /** The scale of another argument: add it. */
  scaleOf: 4096,
  /** Likewise the number that stands for zero. */
  zeroOf: 8192,
  /** The operand of the n-th operation that follows, counted from 0. */
  operand: (n: number) => 32768 * (n + 1) + 2,
} as const;

/** What a primitive does to its result before it writes it: `dnnl_post_ops_t`. */
export type PostOp =
  | { op: "sum" }
  | { op: "gelu" }
  /** To numbers of this description, whose dimensions are the result's or 1. */
  | { op: "add"; to: Handle };

/** How a primitive goes about its work. */
export interface Attributes {
  /** Arguments with scales, and for which of their dimensions: bit d for dimension d, 0 for one scale in all. */
  scales?: readonly [arg: number, mask: number][];
  /** Arguments of which another number than 0 stands for zero. */
  zeros?: readonly number[];
  /** What follows. */
  then?: readonly PostOp[];
}

/** Something of oneDNN's, which is freed when nobody has it any more. */
export interface Handle {
  readonly pointer: Deno.PointerValue;
}

/** A computation for certain shapes. */
export interface Primitive extends Handle {
  /** How it wants its weights to lie. */
  readonly weights: Handle;
}

/** Arguments of a primitive, ready for it. */
export interface Arguments {
  readonly count: number;
  readonly pointer: Deno.PointerValue;
  /** What must live as long. */
  readonly keep: unknown;
}

const AVX512_CORE_BF16 = 0xe7; // of dnnl_cpu_isa_t: newer instructions include its bits
const CPU = 1, IN_ORDER = 1, ANY = 1, INFERENCE = 96, WEIGHTS_MD = 131;
const GAIN_AND_SHIFT = 2 | 4,
  GELU_TANH = 0x2b,
  ADD = 0x1fff0,
  MULTIPLY = 0x1fff1,
  SOFTMAX = 0x30000,
  REDUCTION_MAX = 0x2fff2;

/** Descriptions that are kept. */
const MAX_DESCRIPTIONS = 4096;

const STATUSES = ["success", "out of memory", "invalid arguments", "unimplemented", "last implementation reached"];

/** The library, open, with the processor as its engine. What it makes it computes on the thread that calls. */
export class Onednn {
  /** Its version. */
  readonly version: string;
  /** Whether the processor has instructions for bfloat16; without them it is slower than float32. */
  readonly bfloat16: boolean;
  readonly #openmp: ReturnType<typeof openOpenmp>;
  readonly #symbols: Deno.DynamicLibrary<typeof symbols>["symbols"];
  readonly #engine: Deno.PointerValue;
  readonly #stream: Deno.PointerValue;
  /** Those that were asked for, by what they say. */
  readonly #descriptions = new Map<string, Handle>();
  readonly #freed = new FinalizationRegistry<() => void>((free) => free());

  /** Opens the library at `path`. Throws what the loader says, or an error that says what is missing. */
  constructor(path: string, threads: number) {
    const openmp = openOpenmp();
    pin(path); // and OpenMP, whose threads wait for more work
    this.#symbols = Deno.dlopen(path, symbols).symbols;
    this.#openmp = openmp;
    this.threads = threads;
    this.bfloat16 = (this.#symbols.dnnl_get_effective_cpu_isa() & AVX512_CORE_BF16) === AVX512_CORE_BF16;
    this.#engine = this.#make("engine", (result) => this.#symbols.dnnl_engine_create(result, CPU, 0n));
    this.#stream = this.#make("stream", (result) => this.#symbols.dnnl_stream_create(result, this.#engine, IN_ORDER));
    const version = new Deno.UnsafePointerView(this.#symbols.dnnl_version()!);
    this.version = [0, 4, 8].map((offset) => version.getInt32(offset)).join(".");
  }

  /** How many threads share the work of a primitive: when it is made, and when it runs. */
  get threads(): number {
    return this.#threads;
  }

  set threads(count: number) {
    this.#threads = count;
    this.#openmp.omp_set_num_threads(count);
  }
  #threads = 1;

  /** Numbers in memory: their dimensions, and how far apart neighbours along each are. Default: row by row. */
  describe(dimensions: readonly number[], type: DataType, strides = rowByRow(dimensions)): Handle {
    const known = this.#descriptions, key = `${type};${dimensions};${strides}`, found = known.get(key);
    if (found) return found;
    if (known.size >= MAX_DESCRIPTIONS) known.clear();
    const s = this.#symbols, sizes = [int64s(dimensions), int64s(strides)] as const;
    const pointer = this.#make(
      "description",
      (result) => s.dnnl_memory_desc_create_with_strides(result, dimensions.length, sizes[0], type, sizes[1]),
    );
    const description = this.#own(pointer, s.dnnl_memory_desc_destroy);
    known.set(key, description);
    return description;
  }

  /** The same, in whatever order suits the primitive. */
  describeAny(dimensions: readonly number[], type: DataType): Handle {
    const s = this.#symbols, sizes = int64s(dimensions);
    return this.#own(
      this.#make(
        "description",
        (result) => s.dnnl_memory_desc_create_with_tag(result, dimensions.length, sizes, type, ANY),
      ),
      s.dnnl_memory_desc_destroy,
    );
  }

  /** Whether two descriptions say the same. */
  same(a: Handle, b: Handle): boolean {
    return this.#symbols.dnnl_memory_desc_equal(a.pointer, b.pointer) === 1;
  }

  /** The bytes that numbers of this description take. */
  bytesOf(description: Handle): number {
    return Number(this.#symbols.dnnl_memory_desc_get_size(description.pointer));
  }

  /** Numbers of this description at a place in memory. */
  memory(description: Handle, bytes: Uint8Array<ArrayBuffer>): Handle {
    const s = this.#symbols, place = Deno.UnsafePointer.of(bytes);
    const made = this.#make(
      "memory",
      (result) => s.dnnl_memory_create(result, description.pointer, this.#engine, place),
    );
    return Object.assign(this.#own(made, s.dnnl_memory_destroy), { bytes }); // they live as long
  }

  /** Has numbers of the same description taken from another place. */
  move(memory: Handle, bytes: Uint8Array<ArrayBuffer>): void {
    const status = this.#symbols.dnnl_memory_set_data_handle(memory.pointer, Deno.UnsafePointer.of(bytes));
    if (status) throw failure("take numbers from another place", status);
  }

  /** A few float32 or int32 numbers, copied. */
  numbers(values: Float32Array | Int32Array, dimensions: readonly number[] = [values.length]): Handle {
    const type = values instanceof Float32Array ? DataType.float32 : DataType.int32, { bytes } = HostMemory.of(values);
    return this.memory(this.describe(dimensions, type), bytes);
  }

  /** [.., N, K]·[.., K, M] -> [.., N, M], plus a bias that may be null. */
  matmul(
    source: Handle,
    weights: Handle,
    bias: Handle | null,
    destination: Handle,
    attributes?: Attributes,
  ): Primitive {
    const parts = [source, weights, bias, destination].map((part) => part?.pointer ?? null);
    const [x, w, b, y] = parts;
    return this.#primitive(
      "product",
      attributes,
      (result, attr) => this.#symbols.dnnl_matmul_primitive_desc_create(result, this.#engine, x, w, b, y, attr),
    );
  }

  /** Layer norm with gain and shift: along the last dimension. */
  layerNorm(source: Handle, destination: Handle, epsilon: number): Primitive {
    return this.#primitive(
      "layer norm",
      {},
      (result, attr) =>
        this.#symbols.dnnl_layer_normalization_forward_primitive_desc_create(
          ...[result, this.#engine, INFERENCE, source.pointer, destination.pointer] as const,
          ...[null, epsilon, GAIN_AND_SHIFT, attr] as const,
        ),
    );
  }

  /** Softmax along a dimension. */
  softmax(source: Handle, destination: Handle, axis: number): Primitive {
    return this.#primitive("softmax", {}, (result, attr) =>
      this.#symbols.dnnl_softmax_forward_primitive_desc_create(
        ...[result, this.#engine, INFERENCE, SOFTMAX, source.pointer, destination.pointer, axis, attr] as const,
      ));
  }

  /** Numbers times others, whose dimensions are theirs or 1. */
  multiply(source: Handle, by: Handle, destination: Handle, attributes: Attributes): Primitive {
    return this.#primitive(
      "multiplication",
      attributes,
      (result, attr) =>
        this.#symbols.dnnl_binary_primitive_desc_create(
          ...[result, this.#engine, MULTIPLY, source.pointer, by.pointer, destination.pointer, attr] as const,
        ),
    );
  }

  /** The largest numbers along the dimensions of which the result has one only. */
  max(source: Handle, destination: Handle): Primitive {
    return this.#primitive("maximum", {}, (result, attr) =>
      this.#symbols.dnnl_reduction_primitive_desc_create(
        ...[result, this.#engine, REDUCTION_MAX, source.pointer, destination.pointer, 0, 0, attr] as const,
      ));
  }

  /** Copies numbers in another order, or as another type. */
  reorder(source: Handle, destination: Handle, attributes?: Attributes): Primitive {
    const engine = this.#engine;
    return this.#primitive("reorder", attributes, (result, attr) =>
      this.#symbols.dnnl_reorder_primitive_desc_create(
        result,
        source.pointer,
        engine,
        destination.pointer,
        engine,
        attr,
      ));
  }

  /** Arguments for a primitive: for each what it is, and where. */
  arguments(list: readonly (readonly [arg: number, memory: Handle])[]): Arguments {
    const structs = new BigInt64Array(2 * list.length); // of an int and a pointer
    list.forEach(([arg, { pointer }], i) =>
      structs.set([BigInt(arg), BigInt(Deno.UnsafePointer.value(pointer))], 2 * i)
    );
    return { count: list.length, pointer: Deno.UnsafePointer.of(structs), keep: [structs, list] };
  }

  /** Runs a primitive, and returns when it is done. */
  execute({ pointer }: Primitive, args: Arguments): void {
    const status = this.#symbols.dnnl_primitive_execute(pointer, this.#stream, args.count, args.pointer);
    if (status) throw failure("run a primitive", status);
  }

  #primitive(
    what: string,
    { scales = [], zeros = [], then = [] }: Attributes = {},
    describe: (result: BigUint64Array<ArrayBuffer>, attributes: Deno.PointerValue) => number,
  ): Primitive {
    const s = this.#symbols;
    const attributes = this.#make("attributes", s.dnnl_primitive_attr_create);
    const postOps = this.#make("post-ops", s.dnnl_post_ops_create);
    try {
      const checked = (status: number) => {
        if (status) throw failure(`describe a ${what}`, status);
      };
      for (const [arg, mask] of scales) checked(s.dnnl_primitive_attr_set_scales_mask(attributes, arg, mask));
      for (const arg of zeros) checked(s.dnnl_primitive_attr_set_zero_points_mask(attributes, arg, 0));
      for (const one of then) {
        if (one.op === "sum") checked(s.dnnl_post_ops_append_sum(postOps, 1, 0, 0));
        else if (one.op === "gelu") checked(s.dnnl_post_ops_append_eltwise(postOps, GELU_TANH, 0, 0));
        else {
          checked(s.dnnl_post_ops_append_binary(postOps, ADD, one.to.pointer));
        }
      }
      checked(s.dnnl_primitive_attr_set_post_ops(attributes, postOps));
      const description = this.#make(what, (result) => describe(result, attributes));
      try {
        const primitive = this.#make(what, (result) => s.dnnl_primitive_create(result, description));
        const theirs = s.dnnl_primitive_desc_query_md(description, WEIGHTS_MD, 0);
        const clone = this.#make("description", (result) => s.dnnl_memory_desc_clone(result, theirs));
        const weights = this.#own(clone, s.dnnl_memory_desc_destroy);
        return Object.assign(this.#own(primitive, s.dnnl_primitive_destroy), { weights });
      } finally {
        s.dnnl_primitive_desc_destroy(description);
      }
    } finally {
      s.dnnl_post_ops_destroy(postOps);
      s.dnnl_primitive_attr_destroy(attributes);
    }
  }

  /** What a function of the library writes to its first parameter. */
  #make(what: string, create: (result: BigUint64Array<ArrayBuffer>) => number): Deno.PointerValue {
    const result = new BigUint64Array(1), status = create(result);
    if (status) throw failure(`make a ${what}`, status);
    return Deno.UnsafePointer.create(result[0]);
  }

  #own(pointer: Deno.PointerValue, destroy: (pointer: Deno.PointerValue) => number): Handle {
    const handle = { pointer };
    this.#freed.register(handle, () => destroy(pointer));
    return handle;
  }
}

/** Strides of numbers that lie row by row. */
export function rowByRow(dimensions: readonly number[]): number[] {
  const strides = dimensions.map(() => 1);
  for (let i = strides.length - 2; i >= 0; i--) strides[i] = strides[i + 1] * dimensions[i + 1];
  return strides;
}

function openOpenmp() {
  const chosen = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"].some((name) => Deno.env.has(name));
  if (!chosen) Deno.env.set("GOMP_SPINCOUNT", SPIN_COUNT); // read when it is loaded
  try {
    return Deno.dlopen(OPENMP, { omp_set_num_threads: { parameters: [i32], result: "void" } }).symbols;
  } catch (cause) {
    throw new Error(`oneDNN needs ${OPENMP}, which comes with GCC: install the package libgomp1 or libgomp`, { cause });
  }
}

function failure(what: string, status: number): Error {
  return new Error(`oneDNN cannot ${what}: ${STATUSES[status] ?? `status ${status}`}.`);
}

function int64s(values: readonly number[]): BigInt64Array<ArrayBuffer> {
  return BigInt64Array.from(values, BigInt);
}
