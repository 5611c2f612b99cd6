/** Attributes of TensorFlow operations: the parameters that are fixed when an operation is made, such as its dtype. */

import { cString, type Symbols } from "./library.ts";

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
  name: string;
  /** One of {@link AttributeType}. */
  type: number;
  value: unknown;
}

/** The functions that set attributes: of an operation that runs at once, or of one that is being put into a graph. */
export type AttributeSetters = ReturnType<typeof attributeSetters>["eager"];

/** Both sets of setters; the C API has them under two names with the same parameters. */
export function attributeSetters(c: Symbols) {
  return {
    eager: {
      string: c.TFE_OpSetAttrString,
      int: c.TFE_OpSetAttrInt,
      float: c.TFE_OpSetAttrFloat,
      bool: c.TFE_OpSetAttrBool,
      type: c.TFE_OpSetAttrType,
      strings: c.TFE_OpSetAttrStringList,
      ints: c.TFE_OpSetAttrIntList,
      floats: c.TFE_OpSetAttrFloatList,
      bools: c.TFE_OpSetAttrBoolList,
      types: c.TFE_OpSetAttrTypeList,
    },
    graph: {
      string: c.TF_SetAttrString,
      int: c.TF_SetAttrInt,
      float: c.TF_SetAttrFloat,
      bool: c.TF_SetAttrBool,
      type: c.TF_SetAttrType,
      strings: c.TF_SetAttrStringList,
      ints: c.TF_SetAttrIntList,
      floats: c.TF_SetAttrFloatList,
      bools: c.TF_SetAttrBoolList,
      types: c.TF_SetAttrTypeList,
    },
  };
}

/** Sets one attribute on `operation`. An attribute without a value is left to the operation's default. */
export function setAttribute(set: AttributeSetters, operation: Deno.PointerValue, attribute: Attribute): void {
  const { type, value } = attribute;
  if (value === null || value === undefined) return;
  const name = interned(attribute.name);
  if (Array.isArray(value)) return setList(set, operation, attribute, value);
  switch (type) {
    case AttributeType.string: {
      const bytes = interned(String(value));
      return set.string(operation, name, bytes, BigInt(bytes.length - 1));
    }
    case AttributeType.int:
      return set.int(operation, name, BigInt(Math.trunc(Number(value))));
    case AttributeType.float:
      return set.float(operation, name, Number(value));
    case AttributeType.bool:
      return set.bool(operation, name, value ? 1 : 0);
    case AttributeType.type:
      return set.type(operation, name, Number(value));
  }
  throw new TypeError(`Cannot set attribute ${attribute.name}: attributes of type ${type} are not supported.`);
}

function setList(set: AttributeSetters, operation: Deno.PointerValue, attribute: Attribute, values: unknown[]): void {
  const name = interned(attribute.name), count = values.length;
  switch (attribute.type) {
    case AttributeType.string: {
      const strings = values.map((value) => interned(String(value)));
      const pointers = new BigUint64Array(strings.map((s) => Deno.UnsafePointer.value(Deno.UnsafePointer.of(s))));
      const lengths = new BigUint64Array(strings.map((s) => BigInt(s.length - 1)));
      return set.strings(operation, name, pointers, lengths, count);
    }
    case AttributeType.int:
      return set.ints(operation, name, new BigInt64Array(values.map((value) => BigInt(Number(value)))), count);
    case AttributeType.float:
      return set.floats(operation, name, new Float32Array(values.map(Number)), count);
    case AttributeType.bool:
      return set.bools(operation, name, new Uint8Array(values.map((value) => value ? 1 : 0)), count);
    case AttributeType.type:
      return set.types(operation, name, new Int32Array(values.map(Number)), count);
  }
  throw new TypeError(`Cannot set attribute ${attribute.name}: lists of type ${attribute.type} are not supported.`);
}

/** Names and values recur at every call: each is encoded once and stays where C can read it. */
const internedStrings = new Map<string, Uint8Array<ArrayBuffer>>();

/** `text` as a C string that lives as long as the process. For names from a small vocabulary, not for data. */
export function interned(text: string): Uint8Array<ArrayBuffer> {
  let bytes = internedStrings.get(text);
  if (!bytes) internedStrings.set(text, bytes = cString(text));
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
  /** A string, or a list of them. */
  string: (name: string, value: string | string[]): Attribute => ({ name, type: AttributeType.string, value }),
};
