/** Tensors in host memory (`TF_Tensor`): how numbers and strings get in and out of TensorFlow. */

import { DataType } from "./attributes.ts";
import { int64s, type Status, type Symbols } from "./library.ts";
import { readStrings, stringsProto } from "./strings.ts";
import type { DeviceTensor } from "./device_tensor.ts";

const bytesPerElement: Record<number, number> = {
  [DataType.float]: 4,
  [DataType.int32]: 4,
  [DataType.uint8]: 1,
  [DataType.complex64]: 8,
  [DataType.int64]: 8,
  [DataType.bool]: 1,
  [DataType.qint8]: 1,
  [DataType.quint8]: 1,
  [DataType.bfloat16]: 2,
};

/** `TensorShape::MaxDimensions()`. */
const MAX_RANK = 254;

/** Numbers, or strings as UTF-8 bytes, as tfjs hands them over. */
export type HostValues = ArrayLike<number> | ArrayLike<boolean> | ArrayBufferView<ArrayBuffer> | readonly Uint8Array[];

/** What tensors read as: complex numbers as pairs, strings and resources as bytes. */
export type ReadValues = Float32Array | Int32Array | Uint8Array | BigInt64Array | Uint8Array[];

/** Native memory of one tensor, seen as bytes. Fill `bytes`, then make a handle of it; or read a result from it. */
export class HostTensor {
  /** @param pointer what the C functions take */
  private constructor(private readonly c: Symbols, readonly pointer: Deno.PointerValue) {}

  /** The tensor's memory itself, not a copy. Gone after dispose. */
  get bytes(): Uint8Array<ArrayBuffer> {
    const length = Number(this.c.TF_TensorByteSize(this.pointer));
    const data = length ? this.c.TF_TensorData(this.pointer) : null;
    return new Uint8Array(data ? Deno.UnsafePointerView.getArrayBuffer(data, length) : new ArrayBuffer(0));
  }

  /** Gives the addresses where blocks of the tensor's bytes begin. Throws a RangeError for bytes that it does not have. */
  get block(): (offset: number, length: number) => bigint {
    const size = Number(this.c.TF_TensorByteSize(this.pointer));
    const start = Deno.UnsafePointer.value(this.c.TF_TensorData(this.pointer));
    return (offset, length) => {
      if (!(offset >= 0 && offset + length <= size)) {
        throw new RangeError(`Cannot copy bytes ${offset} to ${offset + length} of a tensor: it has ${size}.`);
      }
      return start + BigInt(offset);
    };
  }

  /**
   * Uninitialised memory for a tensor of numbers. Throws a RangeError when the shape is none, when there is not enough
   * memory, or over 4 GB, and a TypeError for another dtype.
   */
  static allocate(c: Symbols, dtype: number, shape: readonly number[]): HostTensor {
    return HostTensor.#allocate(c, dtype, shape, byteLength(dtype, shape));
  }

  /** A tensor that holds `values`. Throws also when their number or kind does not fit the shape or dtype. */
  static from(
    c: Symbols,
    dtype: number,
    shape: readonly number[],
    values: HostValues,
    status: Status,
  ): HostTensor {
    if (dtype === DataType.string) return HostTensor.#fromStrings(c, shape, values, status);
    const length = byteLength(dtype, shape), source = asBytes(dtype, values);
    if (source.length !== length) {
      throw new RangeError(
        `Cannot fill a tensor of shape [${shape}]: it takes ${length} bytes and got ${source.length}.`,
      );
    }
    const tensor = HostTensor.#allocate(c, dtype, shape, length);
    if (length) c.copyIn(c.TF_TensorData(tensor.pointer), source, BigInt(length));
    return tensor;
  }

  /** The host's copy of a tensor on a device; for one in host memory, that memory. */
  static resolve(c: Symbols, handle: Deno.PointerValue, status: Status): HostTensor {
    const pointer = c.TFE_TensorHandleResolve(handle, status.pointer);
    status.check();
    return new HostTensor(c, pointer);
  }

  static #allocate(c: Symbols, dtype: number, shape: readonly number[], length: number): HostTensor {
    if (length >= 2 ** 32) { // Deno sees no further into native memory
      throw new RangeError(`Cannot fill a tensor of shape [${shape}]: ${length} bytes are more than 4 GB. Split it.`);
    }
    const pointer = c.TF_AllocateTensor(dtype, int64s(shape), shape.length, BigInt(length));
    if (!pointer) throw new RangeError(`Cannot allocate a tensor of shape [${shape}]: ${length} bytes are not free.`);
    return new HostTensor(c, pointer);
  }

  static #fromStrings(c: Symbols, shape: readonly number[], values: HostValues, status: Status): HostTensor {
    const count = elementCount(shape);
    if (!Array.isArray(values) || !values.every((value) => value instanceof Uint8Array)) {
      throw new TypeError(
        `Cannot fill a tensor of strings with ${describe(values)}: it takes an array of Uint8Arrays.`,
      );
    }
    if (values.length !== count) {
      throw new RangeError(
        `Cannot fill a tensor of shape [${shape}]: it takes ${count} strings and got ${values.length}.`,
      );
    }
    const proto = stringsProto(DataType.string, shape, values);
    const buffer = c.TF_NewBufferFromString(proto, BigInt(proto.length));
    const tensor = HostTensor.#allocate(c, DataType.string, [0], 0); // to be filled
    c.TF_TensorFromProto(buffer, tensor.pointer, status.pointer);
    c.TF_DeleteBuffer(buffer);
    status.check();
    return tensor;
  }

  /** Frees the memory; a handle made from it keeps its own claim. */
  [Symbol.dispose](): void {
    this.c.TF_DeleteTensor(this.pointer);
  }
}

/** A copy of the values of a tensor on a device, in the typed array of its dtype; strings each in an array of its own. */
export function readValues(c: Symbols, { handle, dtype, shape }: DeviceTensor, status: Status): ReadValues {
  const host = c.TFE_TensorHandleResolve(handle, status.pointer);
  status.check();
  try {
    if (dtype === DataType.string) return readStrings(c, c.TF_TensorData(host), elementCount(shape));
    const length = c.TF_TensorByteSize(host), values = emptyArray(dtype, Number(length));
    if (length) c.copyOut(values, c.TF_TensorData(host), length);
    return values;
  } finally {
    c.TF_DeleteTensor(host);
  }
}

/** An array for the values of a tensor of `length` bytes. */
function emptyArray(dtype: number, length: number) {
  switch (dtype) {
    case DataType.float:
    case DataType.complex64:
      return new Float32Array(length / 4);
    case DataType.int32:
      return new Int32Array(length / 4);
    case DataType.int64:
      return new BigInt64Array(length / 8);
    default:
      return new Uint8Array(length);
  }
}

function elementCount(shape: readonly number[]): number {
  if (
    !Array.isArray(shape) || shape.length > MAX_RANK || !shape.every((size) => Number.isSafeInteger(size) && size >= 0)
  ) {
    throw new RangeError(
      `Cannot make a tensor of shape [${shape}]: it takes up to ${MAX_RANK} whole numbers from 0 up.`,
    );
  }
  const count = shape.reduce((product, size) => product * size, 1);
  if (!Number.isSafeInteger(count)) throw new RangeError(`Cannot make a tensor of shape [${shape}]: it is too large.`);
  return count;
}

function byteLength(dtype: number, shape: readonly number[]): number {
  const width = bytesPerElement[dtype];
  if (!width) throw new TypeError(`Cannot make a tensor of TensorFlow type ${dtype}: it is not supported.`);
  return elementCount(shape) * width;
}

function asBytes(dtype: number, values: HostValues): Uint8Array {
  const typed = toTyped(dtype, values);
  return new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength);
}

/** tfjs passes booleans and integers in whatever array it has at hand. */
function toTyped(dtype: number, values: HostValues): ArrayBufferView {
  switch (dtype) {
    case DataType.float:
    case DataType.complex64:
      return values instanceof Float32Array ? values : Float32Array.from(numbers(values));
    case DataType.int32:
      return values instanceof Int32Array ? values : Int32Array.from(numbers(values));
    case DataType.int64: // tfjs-node hands over 64-bit numbers as two 32-bit halves
      if (values instanceof BigInt64Array || values instanceof Int32Array) return values;
      return BigInt64Array.from(Array.from(numbers(values), BigInt));
    case DataType.bool:
    case DataType.uint8:
      return values instanceof Uint8Array ? values : Uint8Array.from(numbers(values));
    default:
      if (ArrayBuffer.isView(values)) return values;
      throw new TypeError(`Cannot fill a tensor of TensorFlow type ${dtype} with ${describe(values)}: use its bytes.`);
  }
}

function numbers(values: HostValues): ArrayLike<number> {
  const hasBigInts = values instanceof BigInt64Array || values instanceof BigUint64Array;
  const isTyped = ArrayBuffer.isView(values) && !(values instanceof DataView) && !hasBigInts;
  if (isTyped || Array.isArray(values) && values.every((value) => typeof value === "number" || value === !!value)) {
    return values as ArrayLike<number>;
  }
  throw new TypeError(`Cannot fill a tensor of numbers with ${describe(values)}.`);
}

function describe(value: unknown): string {
  return Array.isArray(value) ? "an array of other things" : Object.prototype.toString.call(value).slice(8, -1);
}
