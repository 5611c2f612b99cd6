/** What TensorFlow says about its operations (`OpDef`): their inputs and attributes. */

import { createRequire } from "node:module";
import { type Attribute, interned } from "./attributes.ts";
import type { Status, Symbols } from "./library.ts";

/** One operation. */
export interface OpDefinition {
  /** For each input: null for a single tensor, or, for a list, the attribute that says how many or of which types. */
  inputs: readonly (string | null)[];
  /** The types of its attributes, in OpDef's words: `int`, `list(type)`. */
  attributes: ReadonlyMap<string, string>;
  /** Attributes without a default that the inputs' dtypes and number do not tell either. */
  required: readonly string[];
  /** How long lists must be where TensorFlow does not check it, and would end the process. */
  listLengths: ReadonlyMap<string, number>;
}

/**
 * How many tensors each input takes: null for a single one, or the length of the list. Throws a RangeError when that is
 * not `given` in sum: TensorFlow itself would read past its tables.
 */
export function inputLengths(
  op: string,
  { inputs }: OpDefinition,
  attributes: readonly Attribute[],
  given: number,
): (number | null)[] {
  const lengths = inputs.map((listAttribute) => {
    if (listAttribute === null) return null;
    const value = attributes.find((attribute) => attribute?.name === listAttribute)?.value; // a number, or the list of types
    return Array.isArray(value) ? value.length : Number(value);
  });
  const wanted = lengths.reduce<number>((sum, length) => sum + (length ?? 1), 0);
  if (wanted === given && lengths.every((length) => length === null || length >= 0)) return lengths;
  throw new RangeError(`Cannot run ${op} on ${given} tensors: with these attributes it takes ${wanted}.`);
}

/** An operation has `actual` outputs, and `wanted` were asked for. */
export function wrongOutputCount(op: string, actual: number, wanted: unknown): RangeError {
  return new RangeError(`Cannot run ${op} for ${wanted} outputs: with these attributes it has ${actual}.`);
}

/**
 * ScatterNd compares the sizes of `updates` with those of `indices` but the last, and where it has fewer TensorFlow ends the
 * process. Throws a RangeError then.
 */
export function checkScatter([indices, updates]: readonly (readonly number[])[]): void {
  if (updates.length >= indices.length - 1) return;
  throw new RangeError(
    `Cannot run ScatterNd on indices of shape [${indices}] and updates of shape [${updates}]: these need a number of dimensions ` +
      `that is at most one less.`,
  );
}

/** The definitions, each read once. */
export class OpDefinitions {
  readonly #graph: Deno.PointerValue;
  readonly #definitions = new Map<string, OpDefinition>();

  /** Reads nothing yet. */
  constructor(private readonly c: Symbols, private readonly status: Status) {
    this.#graph = c.TF_NewGraph(); // the C API asks for definitions by graph, because a graph may hold functions
  }

  /** The definition of an operation. Throws TensorFlow's message when there is none. */
  get(op: string): OpDefinition {
    let definition = this.#definitions.get(op);
    if (!definition) this.#definitions.set(op, definition = this.#read(op));
    return definition;
  }

  #read(op: string): OpDefinition {
    const { c, status } = this, buffer = c.TF_NewBuffer();
    try {
      c.TF_GraphGetOpDef(this.#graph, interned(op), buffer, status.pointer);
      status.check();
      const view = new Deno.UnsafePointerView(buffer!);
      const data = view.getPointer(0), length = Number(view.getBigUint64(8));
      const bytes = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(data!, length).slice(0));
      const { OpDef } = createRequire(import.meta.url)("@tensorflow/tfjs-node-gpu/dist/proto/api_pb.js");
      const definition = OpDef.deserializeBinary(bytes);
      // deno-lint-ignore no-explicit-any -- generated code without types
      const inputs: any[] = definition.getInputArgList(), attributes: any[] = definition.getAttrList();
      const inferred = new Set(
        inputs.flatMap((input) => [input.getTypeAttr(), input.getNumberAttr(), input.getTypeListAttr()]),
      );
      return {
        inputs: inputs.map((input) => input.getNumberAttr() || input.getTypeListAttr() || null),
        attributes: new Map(attributes.map((attribute) => [attribute.getName(), attribute.getType()])),
        required: attributes.filter((attribute) => !attribute.hasDefaultValue() && !inferred.has(attribute.getName()))
          .map((attribute) => attribute.getName()),
        listLengths: new Map(
          op !== "Conv" && attributes.some((attribute) => attribute.getName() === "data_format") // Conv takes any rank
            ? ["strides", "dilations", "ksize"].map((name) => [name, /3D/.test(op) ? 5 : 4]) // one for each axis
            : [],
        ),
      };
    } finally {
      c.TF_DeleteBuffer(buffer);
    }
  }
}
