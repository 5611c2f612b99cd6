/** Attributes of TensorFlow operations: the parameters that are fixed when an operation is made, such as its dtype. */

import type { OpDefinition } from "./op_definitions.ts";
import { addressesOf, cString, int64s, keep, type Status, type Symbols } from "./library.ts";

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
      shape: c.TFE_OpSetAttrShape,
      strings: c.TFE_OpSetAttrStringList,
      ints: c.TFE_OpSetAttrIntList,
      floats: c.TFE_OpSetAttrFloatList,
      bools: c.TFE_OpSetAttrBoolList,
      types: c.TFE_OpSetAttrTypeList,
      shapes: c.TFE_OpSetAttrShapeList,
    },
    graph: {
      string: c.TF_SetAttrString,
      int: c.TF_SetAttrInt,
      float: c.TF_SetAttrFloat,
      bool: c.TF_SetAttrBool,
      type: c.TF_SetAttrType,
      shape: c.TF_SetAttrShape,
      strings: c.TF_SetAttrStringList,
      ints: c.TF_SetAttrIntList,
      floats: c.TF_SetAttrFloatList,
      bools: c.TF_SetAttrBoolList,
      types: c.TF_SetAttrTypeList,
      shapes: c.TF_SetAttrShapeList,
    },
  };
}

/**
 * Sets the attributes of an operation. Throws a TypeError when it has no such attribute, when a value is not of its type,
 * or when one is missing.
 */
export function setAttributes(
  set: AttributeSetters,
  operation: Deno.PointerValue,
  op: string,
  definition: OpDefinition,
  attributes: readonly Attribute[],
  status: Status,
): void {
  for (const attribute of attributes) {
    const { name, type } = attribute, wanted = definition.attributes.get(name), list = isList(attribute, wanted);
    const given = list ? LISTS[type] : SINGLE[type];
    // Whatever begins with _ may be set on any operation, for the kernel.
    const isPrivate = wanted === undefined && typeof name === "string" && name.startsWith("_");
    if (given === undefined || wanted !== given && !isPrivate) {
      const problem = wanted ? `it is of type ${wanted} and was given ${given ?? `type ${type}`}` : "it has none";
      throw new TypeError(`Cannot set attribute ${name} of ${op}: ${problem}.`);
    }
    const length = definition.listLengths.get(name);
    if (length !== undefined && (attribute.value as unknown[]).length !== length) {
      throw new RangeError(`Cannot set attribute ${name} of ${op}: it takes ${length} numbers.`);
    }
    if (list) setList(set, operation, attribute, status);
    else setOne(set, operation, attribute, status);
  }
  for (const name of definition.required) {
    if (attributes.some((attribute) => attribute.name === name)) continue;
    throw new TypeError(`Cannot run ${op} without the attribute ${name}, of type ${definition.attributes.get(name)}.`);
  }
}

/** By number: what an attribute's type is called in definitions of operations. */
const SINGLE = ["string", "int", "float", "bool", "type", "shape"];
const LISTS = SINGLE.map((name) => `list(${name})`);

function setOne(set: AttributeSetters, operation: Deno.PointerValue, attribute: Attribute, status: Status): void {
  const { type, value } = attribute, name = interned(attribute.name);
  switch (type) {
    case AttributeType.string: {
      const bytes = interned(checked(attribute, value));
      return set.string(operation, name, bytes, BigInt(bytes.length - 1));
    }
    case AttributeType.int:
      return set.int(operation, name, BigInt(whole(checked(attribute, value))));
    case AttributeType.float:
      return set.float(operation, name, checked(attribute, value));
    case AttributeType.bool:
      return set.bool(operation, name, checked(attribute, value) ? 1 : 0);
    case AttributeType.type:
      return set.type(operation, name, checked(attribute, value));
    case AttributeType.shape: {
      const sizes = checked<number[]>(attribute, value);
      set.shape(operation, name, int64s(sizes), sizes.length, status.pointer);
      return status.check();
    }
  }
}

function setList(set: AttributeSetters, operation: Deno.PointerValue, attribute: Attribute, status: Status): void {
  const name = interned(attribute.name), values = attribute.value as unknown[], count = values.length;
  // deno-lint-ignore no-explicit-any -- each case below knows what it gets
  const checkedValues = values.map((value) => checked<any>(attribute, value));
  switch (attribute.type) {
    case AttributeType.string: {
      const strings: Uint8Array<ArrayBuffer>[] = checkedValues.map((value) => encoder.encode(value));
      set.strings(operation, name, addressesOf(strings), lengths(strings), count);
      return keep(strings);
    }
    case AttributeType.int:
      return set.ints(operation, name, int64s(checkedValues.map(whole)), count);
    case AttributeType.float:
      return set.floats(operation, name, new Float32Array(checkedValues), count);
    case AttributeType.bool:
      return set.bools(operation, name, Uint8Array.from(checkedValues), count);
    case AttributeType.type:
      return set.types(operation, name, new Int32Array(checkedValues), count);
    case AttributeType.shape: {
      const shapes: BigInt64Array<ArrayBuffer>[] = checkedValues.map((sizes) => new BigInt64Array(sizes.map(BigInt)));
      const ranks = new Int32Array(shapes.map(({ length }) => length));
      set.shapes(operation, name, addressesOf(shapes), ranks, count, status.pointer);
      keep(shapes);
      return status.check();
    }
  }
}

/** A shape is itself an array: an empty one, and an empty list of shapes, are told apart by what is `wanted`. */
function isList({ type, value }: Attribute, wanted: string | undefined): boolean {
  if (type !== AttributeType.shape || !Array.isArray(value)) return Array.isArray(value);
  return value.length ? Array.isArray(value[0]) : wanted === "list(shape)";
}

/** tfjs leaves fractions in some numbers that TensorFlow wants whole, such as seeds. */
const whole = (value: number | bigint) => typeof value === "bigint" ? value : Math.trunc(value);

const int32 = (value: unknown) => Number.isInteger(value) && (value as number) >> 0 === value;

/** What attributes of each type take, and how to say so. */
const KINDS: Record<number, [accepts: (value: unknown) => boolean, kind: string]> = {
  [AttributeType.string]: [(value) => typeof value === "string", "a string"],
  [AttributeType.int]: [(value) => Number.isFinite(value) || typeof value === "bigint", "a number"],
  [AttributeType.float]: [(value) => typeof value === "number", "a number"],
  [AttributeType.bool]: [(value) => typeof value === "boolean", "true or false"],
  [AttributeType.type]: [int32, "the number of an element type"],
  [AttributeType.shape]: [
    (value) => Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= -1),
    "an array of whole numbers, -1 for unknown sizes",
  ],
};

function checked<T>({ name, type }: Attribute, value: unknown): T {
  const [accepts, kind] = KINDS[type];
  if (accepts(value)) return value as T;
  throw new TypeError(`Cannot set attribute ${name}: it takes ${kind}, and got ${describe(value)}.`);
}

function describe(value: unknown): string {
  if (typeof value === "string") return `"${value}"`;
  return typeof value === "object" && value ? Object.prototype.toString.call(value) : String(value);
}

function lengths(arrays: readonly Uint8Array[]): BigUint64Array<ArrayBuffer> {
  return new BigUint64Array(arrays.map(({ length }) => BigInt(length)));
}

const encoder = new TextEncoder();

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
