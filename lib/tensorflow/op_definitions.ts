/** What TensorFlow says about its operations (`OpDef`): their inputs and attributes. */

import { createRequire } from "node:module";
import { interned } from "./attributes.ts";
import type { Status, Symbols } from "./library.ts";

/** One operation. */
export interface OpDefinition {
  /** For each input: null for a single tensor, or, for a list, the attribute that says how many or of which types. */
  inputs: readonly (string | null)[];
  /** The types of its attributes, in OpDef's words: `int`, `list(type)`. */
  attributes: ReadonlyMap<string, string>;
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
      return {
        inputs: inputs.map((input) => input.getNumberAttr() || input.getTypeListAttr() || null),
        attributes: new Map(attributes.map((attribute) => [attribute.getName(), attribute.getType()])),
      };
    } finally {
      c.TF_DeleteBuffer(buffer);
    }
  }
}
