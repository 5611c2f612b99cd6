/** Gives an operation its attributes, after checking them against what TensorFlow says about it. */

import { type Attribute, AttributeType, interned } from "./attributes.ts";
import { addressesOf, int64s, keep, type Status, type Symbols } from "./library.ts";
import type { OpDefinition } from "./op_definitions.ts";

/** The functions that set attributes: of an operation that runs at once, or of one that is being put into a graph. */
export type AttributeSetters = ReturnType<typeof attributeSetters>;

/** One set of setters: the C API has two, under two prefixes, with the same parameters. */
export function attributeSetters(c: Symbols, prefix: "TFE_OpSetAttr" | "TF_SetAttr") {
  return {
    string: c[`${prefix}String`],
    int: c[`${prefix}Int`],
    float: c[`${prefix}Float`],
    bool: c[`${prefix}Bool`],
    type: c[`${prefix}Type`],
    shape: c[`${prefix}Shape`],
    strings: c[`${prefix}StringList`],
    ints: c[`${prefix}IntList`],
    floats: c[`${prefix}FloatList`],
    bools: c[`${prefix}BoolList`],
    types: c[`${prefix}TypeList`],
    shapes: c[`${prefix}ShapeList`],
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
