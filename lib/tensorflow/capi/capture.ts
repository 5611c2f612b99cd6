/** Captures: operations that are recorded as one function instead of being run. */

import { attr, type Attribute, DataType } from "./attributes.ts";
import { Graph, type GraphTensor } from "./graph.ts";
import type { Threads } from "./context.ts";
import { HostTensor } from "./host_tensor.ts";
import type { Status, Symbols } from "./library.ts";
import type { OpDefinitions } from "./op_definitions.ts";
import type { Tensors } from "./tensors.ts";
import type { OperationTime } from "./trace.ts";

/** Rows of multiples of so many float32 numbers begin where TensorFlow wants a tensor to begin. */
const ALIGNED = 16;

/** A function under construction. */
export class Capture {
  readonly #graph: Graph;
  /** Tensors from outside that became inputs of the function, by their numbers. */
  readonly #inputs = new Map<number, GraphTensor>();
  /** Tensors that the host made on the way (axes, small numbers) and that became constants, by their numbers. */
  readonly #constants = new Map<number, GraphTensor>();
  /** Tensors from this number on were made on the way. */
  readonly #firstId: number;
  #inputCount = 0;

  /** @param tensors the binding's @param scope says which layer is at work, for TensorFlow's error messages */
  constructor(
    private readonly c: Symbols,
    private readonly status: Status,
    definitions: OpDefinitions,
    private readonly tensors: Tensors,
    private readonly scope: () => string,
  ) {
    this.#graph = new Graph(c, status, definitions);
    this.#firstId = tensors.nextId;
  }

  /** The function's next explicit input. */
  addInput(id: number): GraphTensor {
    this.#inputCount++;
    return this.#addInput(id);
  }

  /** Puts an operation down. Throws TensorFlow's message. */
  addOperation(op: string, attributes: readonly Attribute[], inputIds: readonly number[], count: number) {
    const inputs = inputIds.map((id) => this.#place(id));
    return this.#graph.addOperation(op, attributes, inputs, count, this.scope());
  }

  /**
   * Makes one input of vectors from outside that have the same length, such as the biases of all layers, and an operation that
   * takes it apart. In every run an input costs as much as a small operation: without this, a twentieth of an int8 step of GPT-2 124M.
   * `stack` makes a new tensor of them; the caller frees what is given back, after the function.
   */
  stackVectors(stack: (ids: number[]) => number): number[] {
    const vectors = [...this.#inputs].filter(([, { dtype, shape }]) =>
      dtype === DataType.float && shape.length === 1 && shape[0] % ALIGNED === 0
    );
    const byLength = [...Map.groupBy(vectors, ([, { shape }]) => shape[0]).values()];
    return byLength.filter(({ length }) => length > 1).map((alike) => {
      const stacked = stack(alike.map(([id]) => id)), input = this.#addInput(stacked);
      const attributes = [attr.type("T", DataType.float), attr.int("num", alike.length), attr.int("axis", 0)];
      const rows = this.#graph.addOperation("Unpack", attributes, [input], alike.length, ""); // they share its memory
      for (const [i, [id, vector]] of alike.entries()) {
        this.#graph.replaceInput(vector, rows[i]);
        this.#inputs.delete(id);
      }
      this.#inputs.set(stacked, input);
      return stacked;
    });
  }

  /** Everything so far as a function. `owned` are tensors that it uses and that end with it. */
  toFunction(name: string, outputIds: readonly number[], owned: readonly number[]): CapturedFunction {
    const outputs = outputIds.map((id) => this.#place(id));
    const pointer = this.#graph.toFunction(name, outputs);
    return new CapturedFunction(name, pointer, this.#inputCount, [...this.#inputs.keys()], owned, outputs.length);
  }

  /** Runs everything so far on the explicit inputs and says when each operation ran. */
  async trace(
    inputIds: readonly number[],
    outputIds: readonly number[],
    threads: Threads,
  ): Promise<OperationTime[]> {
    const outputs = outputIds.map((id) => this.#place(id));
    const inputs = [...inputIds, ...this.#inputs.keys()].map((id) =>
      HostTensor.resolve(this.c, this.tensors.onDevice(id, "trace").handle, this.status)
    );
    try {
      return await this.#graph.trace(inputs, outputs, threads);
    } finally {
      for (const input of inputs) input[Symbol.dispose]();
    }
  }

  /** Frees what the construction needed. */
  [Symbol.dispose](): void {
    this.#graph[Symbol.dispose]();
  }

  /** A tensor as the graph sees it. */
  #place(id: number): GraphTensor {
    const tensor = this.tensors.get(id);
    if (!("handle" in tensor)) return tensor;
    const outside = id < this.#firstId, known = outside ? this.#inputs : this.#constants;
    let stand = known.get(id);
    if (!stand) known.set(id, stand = outside ? this.#addInput(id) : this.#addConstant(tensor));
    return stand;
  }

  #addInput(id: number): GraphTensor {
    const { dtype, shape } = this.tensors.onDevice(id, "capture a function of");
    return this.#graph.addInput(dtype, shape);
  }

  #addConstant({ handle, dtype, shape }: { handle: Deno.PointerValue; dtype: number; shape: number[] }): GraphTensor {
    using host = HostTensor.resolve(this.c, handle, this.status);
    return this.#graph.addConstant(dtype, shape, host);
  }
}

/** Operations that were captured: one function. */
export class CapturedFunction {
  /**
   * @param name its name in every context
   * @param pointer the `TF_Function`
   * @param inputCount how many explicit inputs it takes
   * @param capturedIds tensors from outside that it uses: its inputs after the explicit ones
   * @param ownedIds those of them that end with it
   * @param outputCount how many tensors it returns
   */
  constructor(
    readonly name: string,
    readonly pointer: Deno.PointerValue,
    readonly inputCount: number,
    readonly capturedIds: readonly number[],
    readonly ownedIds: readonly number[],
    readonly outputCount: number,
  ) {}
}
