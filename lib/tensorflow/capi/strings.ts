/**
 * Strings in and out of TensorFlow's memory. There each is a record of 24 bytes (`TF_TString`) that may own characters
 * elsewhere; so that TensorFlow allocates and frees them all, they go in as a protocol buffer.
 */

import type { Symbols } from "./library.ts";

const RECORD_BYTES = 24;

/** A `TensorProto` of strings: field 1 is the dtype, field 2 the shape, field 8 a string, again and again. */
export function stringsProto(dtype: number, shape: readonly number[], strings: readonly Uint8Array[]) {
  const sizes = shape.flatMap((size) => field(2, [1 << 3, ...varint(size)]));
  const head = new Uint8Array([1 << 3, dtype, ...field(2, sizes)]);
  const heads = strings.map(({ length }) => new Uint8Array([8 << 3 | 2, ...varint(length)]));
  const length = strings.reduce((sum, string, i) => sum + heads[i].length + string.length, head.length);
  if (length >= 2 ** 31) throw new RangeError(`Cannot make a tensor of ${length} bytes of strings: the limit is 2 GB.`);
  const proto = new Uint8Array(length);
  let end = 0;
  const append = (bytes: Uint8Array) => {
    proto.set(bytes, end);
    end += bytes.length;
  };
  append(head);
  for (const [i, string] of strings.entries()) {
    append(heads[i]);
    append(string);
  }
  return proto;
}

/** Copies of the strings of a tensor whose memory is at `data`. */
export function readStrings(c: Symbols, data: Deno.PointerValue, count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => {
    const record = Deno.UnsafePointer.offset(data!, i * RECORD_BYTES);
    const bytes = new Uint8Array(Number(c.TF_StringGetSize(record)));
    if (bytes.length) Deno.UnsafePointerView.copyInto(c.TF_StringGetDataPointer(record)!, bytes);
    return bytes;
  });
}

/** A field that holds `content`, whose length comes before it. */
function field(number: number, content: readonly number[]): number[] {
  return [number << 3 | 2, ...varint(content.length), ...content];
}

/** Protocol buffers' whole numbers of variable length: seven bits a byte, the last one below 128. */
export function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) | 128, ...varint(Math.floor(value / 128))];
}
