/** Attributes of TensorFlow operations: the parameters that are fixed when an operation is made, such as its dtype. */

import { cString } from "./library.ts";

/** TensorFlow's numbers for element types (`TF_DataType` in `tf_datatype.h`). */
export const DataType = {
  float: 1,
  int32: 3,
  uint8: 4,
  string: 7,
  complex64: 8,
  int64: 9,
  bool: 10,
  qint8: 11,
  quint8: 12,
  bfloat16: 14,
  resource: 20,
} as const;

/** tfjs-node's numbers for kinds of attributes (`TF_AttrType` in `tf_attrtype.h`). */
export const AttributeType = { string: 0, int: 1, float: 2, bool: 3, type: 4, shape: 5, resource: 999 } as const;

/** One attribute, in the form that tfjs-node's kernels give it in; a value that is an array makes a list attribute. */
export interface Attribute {
  /** Its name in TensorFlow's definition of the operation; with `_` in front, any that a kernel looks for. */
  name: string;
  /** One of {@link AttributeType}. */
  type: number;
  /** A value of that type, or an array of them. */
  value: unknown;
}

/** Names and values recur at every call: each is encoded once. */
const internedStrings = new Map<string, Uint8Array<ArrayBuffer>>();

/** `text` as a C string. For what comes from a small vocabulary, not for data. */
export function interned(text: string): Uint8Array<ArrayBuffer> {
  let bytes = internedStrings.get(text);
  if (bytes) return bytes;
  if (internedStrings.size > 10_000) internedStrings.clear(); // it was not so small
  internedStrings.set(text, bytes = cString(text));
  return bytes;
}

/** Attributes by kind, for operations that we call by name: `attr.bool("keep_dims", true)`. */
export const attr = {
  /** An element type, or a list of them. */
  type: (name: string, value: number | number[]): Attribute => ({ name, type: AttributeType.type, value }),
  /** A whole number, or a list of them. */
  int: (name: string, value: number | number[]): Attribute => ({ name, type: AttributeType.int, value }),
  /** A number. */
  float: (name: string, value: number): Attribute => ({ name, type: AttributeType.float, value }),
  /** True or false. */
  bool: (name: string, value: boolean): Attribute => ({ name, type: AttributeType.bool, value }),
  /** A shape, with -1 for unknown sizes, or a list of shapes. */
  shape: (name: string, value: number[] | number[][]): Attribute => ({ name, type: AttributeType.shape, value }),
  /** A string, or a list of them. */
  string: (name: string, value: string | string[]): Attribute => ({ name, type: AttributeType.string, value }),
};
