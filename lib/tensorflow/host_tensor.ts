/** Tensors in host memory (`TF_Tensor`): how numbers get in and out of TensorFlow. */

import { DataType } from "./attributes.ts";
import type { Status, Symbols } from "./library.ts";

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

/** Numbers as tfjs hands them over. */
export type HostValues = ArrayLike<number> | ArrayBufferView<ArrayBuffer>;

/** Native memory of one tensor, seen as bytes. Fill `bytes`, then make a handle of it; or read a result from it. */
export class HostTensor {
  /** What the C functions take. */
  readonly pointer: Deno.PointerValue;
  /** The tensor's memory itself, not a copy. Gone after dispose. */
  readonly bytes: Uint8Array<ArrayBuffer>;

  private constructor(private readonly c: Symbols, pointer: Deno.PointerValue) {
    this.pointer = pointer;
    const length = Number(c.TF_TensorByteSize(pointer));
    const data = length ? c.TF_TensorData(pointer) : null;
    this.bytes = new Uint8Array(data ? Deno.UnsafePointerView.getArrayBuffer(data, length) : new ArrayBuffer(0));
  }

  /** Uninitialised memory for a tensor. Throws a RangeError when there is not enough memory, or over 4 GB. */
  static allocate(c: Symbols, dtype: number, shape: readonly number[]): HostTensor {
    const length = byteLength(dtype, shape);
    if (length >= 2 ** 32) { // Deno sees no further into native memory
      throw new RangeError(`Cannot fill a tensor of shape [${shape}]: ${length} bytes are more than 4 GB. Split it.`);
    }
    const pointer = c.TF_AllocateTensor(dtype, new BigInt64Array(shape.map(BigInt)), shape.length, BigInt(length));
    if (!pointer) throw new RangeError(`Cannot allocate a tensor of shape [${shape}]: ${length} bytes are not free.`);
    return new HostTensor(c, pointer);
  }

  /** A tensor that holds `values`. Throws a RangeError when their number does not fit the shape. */
  static from(c: Symbols, dtype: number, shape: readonly number[], values: HostValues): HostTensor {
    const source = asBytes(dtype, values), length = byteLength(dtype, shape);
    if (source.length !== length) {
      throw new RangeError(
        `Cannot fill a tensor of shape [${shape}]: it takes ${length} bytes and got ${source.length}.`,
      );
    }
    const tensor = HostTensor.allocate(c, dtype, shape);
    tensor.bytes.set(source);
    return tensor;
  }

  /** The host's copy of a tensor on a device; for one in host memory, that memory. */
  static resolve(c: Symbols, handle: Deno.PointerValue, status: Status): HostTensor {
    const pointer = c.TFE_TensorHandleResolve(handle, status.pointer);
    status.check();
    return new HostTensor(c, pointer);
  }

  /** A copy of the values, in the typed array of `dtype`. */
  values(dtype: number): Float32Array | Int32Array | Uint8Array | BigInt64Array {
    const copy = this.bytes.slice().buffer;
    switch (dtype) {
      case DataType.float:
      case DataType.complex64:
        return new Float32Array(copy);
      case DataType.int32:
        return new Int32Array(copy);
      case DataType.int64:
        return new BigInt64Array(copy);
      default:
        return new Uint8Array(copy);
    }
  }

  /** Frees the memory; a handle made from it keeps its own claim. */
  [Symbol.dispose](): void {
    this.c.TF_DeleteTensor(this.pointer);
  }
}

function byteLength(dtype: number, shape: readonly number[]): number {
  const width = bytesPerElement[dtype];
  if (!width) throw new TypeError(`Cannot make a tensor of TensorFlow type ${dtype}: it is not supported.`);
  return shape.reduce((product, size) => product * size, width);
}

function asBytes(dtype: number, values: HostValues): Uint8Array {
  const typed = toTyped(dtype, values);
  return new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength);
}

/** tfjs passes booleans and integers in whatever array it has at hand. */
function toTyped(dtype: number, values: HostValues): ArrayBufferView {
  const numbers = values as ArrayLike<number>;
  switch (dtype) {
    case DataType.float:
    case DataType.complex64:
      return values instanceof Float32Array ? values : Float32Array.from(numbers);
    case DataType.int32:
      return values instanceof Int32Array ? values : Int32Array.from(numbers);
    case DataType.int64: // tfjs-node hands over 64-bit scalars as two 32-bit halves
      return ArrayBuffer.isView(values) ? values : BigInt64Array.from(Array.from(numbers, BigInt));
    case DataType.bool:
    case DataType.uint8:
      return values instanceof Uint8Array ? values : Uint8Array.from(numbers);
    default:
      return values as ArrayBufferView;
  }
}
