/**
 * Graphs: operations recorded without computing anything, to become one function that a single call runs.
 *
 * TensorFlow's shape inference tells the shape of every output on the way, so code that builds a graph sees the same
 * dtypes and shapes that it would see if the operations ran.
 */

import { attr, type Attribute, DataType, interned } from "./attributes.ts";
import type { Threads } from "./context.ts";
import type { HostTensor } from "./host_tensor.ts";
import { cString, type Status, type Symbols } from "./library.ts";
import { inputLengths, type OpDefinitions, wrongOutputCount } from "./op_definitions.ts";
import { type AttributeSetters, attributeSetters, setAttributes } from "./set_attributes.ts";
import { type OperationTime, TracingSession } from "./trace.ts";

/** A tensor that a graph will compute: which output of which node. */
export interface GraphTensor {
  node: Deno.PointerValue;
  output: number;
  dtype: number;
  shape: number[];
}

/** A graph under construction. */
export class Graph {
  readonly #c: Symbols;
  readonly #status: Status;
  readonly #definitions: OpDefinitions;
  readonly #graph: Deno.PointerValue;
  readonly #setters: AttributeSetters;
  #inputs: GraphTensor[] = [];
  /** All but the inputs. */
  readonly #operations: Deno.PointerValue[] = [];
  /** Operations that give nothing, and so are there for what they do. */
  readonly #effects: Deno.PointerValue[] = [];
  #nodes = 0;

  /** An empty graph. */
  constructor(c: Symbols, status: Status, definitions: OpDefinitions) {
    this.#c = c;
    this.#status = status;
    this.#definitions = definitions;
    this.#graph = c.TF_NewGraph();
    this.#setters = attributeSetters(c, "TF_SetAttr");
  }

  /** The function's next input. Its shape is an example: the function takes others where no constant says otherwise. */
  addInput(dtype: number, shape: readonly number[]): GraphTensor {
    const node = this.#begin("Placeholder", `input_${this.#nodes}`);
    this.#c.TF_SetAttrType(node, interned("dtype"), dtype);
    const own = dtype === DataType.resource ? [] : shape; // a variable is told by the shape of what it holds
    this.#c.TF_SetAttrShape(node, interned("shape"), new BigInt64Array(own.map(BigInt)), own.length);
    const input = { node: this.#finish(node), output: 0, dtype, shape: [...shape] };
    this.#inputs.push(input);
    return input;
  }

  /** Gives up an input: what reads it reads `other` instead. */
  replaceInput(input: GraphTensor, other: GraphTensor): void {
    this.#inputs = this.#inputs.filter((one) => one !== input);
    const from = toStruct(input), count = this.#c.TF_OperationOutputNumConsumers(from);
    const readers = new Uint8Array(count * structBytes); // of `TF_Input`, laid out as `TF_Output` is
    this.#c.TF_OperationOutputConsumers(from, readers, count);
    for (let i = 0; i < count; i++) {
      const reader = readers.slice(i * structBytes, (i + 1) * structBytes);
      this.#c.TF_UpdateEdge(this.#graph, toStruct(other), reader, this.#status.pointer);
      this.#status.check();
    }
  }

  /** A constant. */
  addConstant(dtype: number, shape: readonly number[], value: HostTensor): GraphTensor {
    const node = this.#begin("Const", `constant_${this.#nodes}`);
    this.#c.TF_SetAttrType(node, interned("dtype"), dtype);
    this.#c.TF_SetAttrTensor(node, interned("value"), value.pointer, this.#status.pointer);
    this.#status.check();
    const constant = { node: this.#finish(node), output: 0, dtype, shape: [...shape] };
    this.#operations.push(constant.node);
    return constant;
  }

  /**
   * Any operation. `scope` stands in front of its name in TensorFlow's error messages. Throws what TensorFlow says about
   * inputs or attributes that do not fit, and a TypeError where it cannot tell a shape beforehand.
   */
  addOperation(
    op: string,
    attributes: readonly Attribute[],
    inputs: readonly GraphTensor[],
    outputCount: number,
    scope: string,
  ): GraphTensor[] {
    const definition = this.#definitions.get(op);
    const lengths = inputLengths(op, definition, attributes, inputs.length);
    const node = this.#begin(op, `${scope}${op.replace(/^_/, "")}_${this.#nodes}`);
    let next = 0;
    for (const length of lengths) { // eager operations sort this out themselves
      if (length === null) this.#c.TF_AddInput(node, toStruct(inputs[next++]));
      else this.#c.TF_AddInputList(node, toStructs(inputs.slice(next, next += length)), length);
    }
    // Without the scope, TensorFlow would make one of operations that several scopes do each for themselves, side by side.
    const scoped = [...attributes, attr.string("_scope", scope)];
    setAttributes(this.#setters, node, op, definition, scoped, this.#status);
    const finished = this.#finish(node), count = this.#c.TF_OperationNumOutputs(finished);
    if (count !== outputCount) throw wrongOutputCount(op, count, outputCount);
    this.#operations.push(finished);
    if (count === 0) this.#effects.push(finished);
    if (op === "ReadVariableOp") this.#setShape(finished, inputs[0].shape);
    return Array.from({ length: outputCount }, (_, output) => this.#describe(op, finished, output));
  }

  /**
   * The graph as a function, to be added to a context. Its outputs are `outputs`, its inputs those added so far. Operations
   * without outputs, which change variables, run too.
   */
  toFunction(name: string, outputs: readonly GraphTensor[]): Deno.PointerValue {
    const fn = this.#c.TF_GraphToFunctionWithControlOutputs(
      this.#graph,
      cString(name),
      0,
      this.#operations.length,
      addresses(this.#operations),
      this.#inputs.length,
      toStructs(this.#inputs),
      outputs.length,
      toStructs(outputs),
      null,
      this.#effects.length,
      addresses(this.#effects),
      null,
      null,
      null,
      this.#status.pointer,
    );
    this.#status.check();
    return fn;
  }

  /** Runs the graph as it is, with `inputs` for those added so far, and says when each of its operations ran. */
  async trace(
    inputs: readonly HostTensor[],
    outputs: readonly GraphTensor[],
    threads: Threads,
  ): Promise<OperationTime[]> {
    using session = new TracingSession(this.#c, this.#status, this.#graph, threads);
    const values = new BigUint64Array(inputs.map((input) => Deno.UnsafePointer.value(input.pointer)));
    return await session.run(toStructs(this.#inputs), values, toStructs(outputs), outputs.length);
  }

  /** Frees the graph; functions made from it live on. */
  [Symbol.dispose](): void {
    this.#c.TF_DeleteGraph(this.#graph);
  }

  #begin(op: string, name: string): Deno.PointerValue {
    this.#nodes++;
    return this.#c.TF_NewOperation(this.#graph, interned(op), cString(name));
  }

  #finish(node: Deno.PointerValue): Deno.PointerValue {
    const finished = this.#c.TF_FinishOperation(node, this.#status.pointer);
    this.#status.check();
    return finished;
  }

  /** Tells shape inference an output's shape, of which it knows nothing. */
  #setShape(node: Deno.PointerValue, shape: readonly number[]): void {
    const sizes = new BigInt64Array(shape.map(BigInt)), struct = toStruct({ node, output: 0 });
    this.#c.TF_GraphSetTensorShape(this.#graph, struct, sizes, sizes.length, this.#status.pointer);
    this.#status.check();
  }

  #describe(op: string, node: Deno.PointerValue, output: number): GraphTensor {
    const struct = toStruct({ node, output });
    const dtype = this.#c.TF_OperationOutputType(struct);
    const rank = this.#c.TF_GraphGetTensorNumDims(this.#graph, struct, this.#status.pointer);
    this.#status.check();
    const sizes = new BigInt64Array(Math.max(rank, 0));
    if (rank > 0) this.#c.TF_GraphGetTensorShape(this.#graph, struct, sizes, rank, this.#status.pointer);
    this.#status.check();
    const shape = Array.from(sizes, Number);
    if (rank >= 0 && shape.every((size) => size >= 0)) return { node, output, dtype, shape };
    return {
      node,
      output,
      dtype,
      get shape(): number[] {
        throw new TypeError(
          `Cannot capture ${op}: the shape of its output depends on values. Run it outside the capture.`,
        );
      },
    };
  }
}

function addresses(nodes: readonly Deno.PointerValue[]): BigUint64Array<ArrayBuffer> {
  return new BigUint64Array(nodes.map((node) => Deno.UnsafePointer.value(node)));
}

/** `TF_Output` is 16 bytes: a pointer, a 32-bit index, padding. */
const structBytes = 16;

function toStruct(tensor: Pick<GraphTensor, "node" | "output">): Uint8Array<ArrayBuffer> {
  return toStructs([tensor]);
}

/** An array of `TF_Output`. */
export function toStructs(tensors: readonly Pick<GraphTensor, "node" | "output">[]): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(tensors.length * structBytes));
  tensors.forEach(({ node, output }, i) => {
    view.setBigUint64(i * structBytes, Deno.UnsafePointer.value(node), true);
    view.setInt32(i * structBytes + 8, output, true);
  });
  return new Uint8Array(view.buffer);
}
