/** SavedModels: graphs with their weights, as TensorFlow's exporters write them to a folder, run by name. */

import { type Threads, threadsConfig } from "./context.ts";
import { toStructs } from "./graph.ts";
import { addressesOf, cString, keep, type Status, type Symbols } from "./library.ts";

interface SavedModel {
  /** The `TF_Session`, which holds the weights. */
  session: Deno.PointerValue;
  graph: Deno.PointerValue;
}

/** Loaded models, by number. */
export class SavedModels {
  readonly #models = new Map<number, SavedModel>();
  #nextId = 1;

  /** @param threads what the models' operations may use */
  constructor(private readonly c: Symbols, private readonly status: Status, private readonly threads: Threads) {}

  /** How many there are. */
  get size(): number {
    return this.#models.size;
  }

  /** Loads the graph that has exactly `tags` and its weights. Throws TensorFlow's message. */
  load(folder: string, tags: readonly string[]): number {
    const { c, status } = this;
    const options = c.TF_NewSessionOptions(), graph = c.TF_NewGraph(), names = tags.map(cString);
    try {
      const config = threadsConfig(this.threads);
      c.TF_SetConfig(options, config, BigInt(config.length), status.pointer);
      status.check();
      const session = c.TF_LoadSessionFromSavedModel(
        ...[options, null, cString(folder), addressesOf(names), names.length, graph, null, status.pointer] as const,
      );
      keep(names);
      status.check();
      this.#models.set(this.#nextId, { session, graph });
      return this.#nextId++;
    } catch (error) {
      c.TF_DeleteGraph(graph);
      throw error;
    } finally {
      c.TF_DeleteSessionOptions(options);
    }
  }

  /** Frees a model. */
  delete(id: number): void {
    const { session, graph } = this.#get(id);
    this.#models.delete(id);
    this.c.TF_DeleteSession(session, this.status.pointer);
    this.c.TF_DeleteGraph(graph);
    this.status.check();
  }

  /**
   * Feeds tensors to the graph and fetches others, both named like `x:0`; takes handles and gives new ones, in host
   * memory. Throws TensorFlow's message.
   */
  run(
    id: number,
    inputs: readonly Deno.PointerValue[],
    inputNames: readonly string[],
    outputNames: readonly string[],
  ): Deno.PointerValue[] {
    const { c, status } = this, { session, graph } = this.#get(id);
    if (inputs.length !== inputNames.length) {
      // In tfjs-node's words, because its tests want them.
      const [names, tensors] = [inputNames.length, inputs.length];
      throw new RangeError(
        `Length of input op names (${names}) does not match the length of input tensors (${tensors}).`,
      );
    }
    const feeds = toStructs(inputNames.map((name) => this.#output(graph, name)));
    const fetches = toStructs(outputNames.map((name) => this.#output(graph, name)));
    const results = new BigUint64Array(outputNames.length);
    const values: Deno.PointerValue[] = [];
    const pointers = () => values.map((value) => Deno.UnsafePointer.value(value));
    try {
      for (const input of inputs) {
        values.push(c.TFE_TensorHandleResolve(input, status.pointer));
        status.check();
      }
      c.TF_SessionRun(
        ...[session, null, feeds, new BigUint64Array(pointers()), values.length] as const,
        ...[fetches, results, results.length, null, 0, null, status.pointer] as const,
      );
      status.check();
      return Array.from(results, (address) => {
        const host = Deno.UnsafePointer.create(address);
        values.push(host);
        const handle = c.TFE_NewTensorHandle(host, status.pointer);
        status.check();
        return handle;
      });
    } finally {
      for (const value of values) if (value) c.TF_DeleteTensor(value);
    }
  }

  #get(id: number): SavedModel {
    const model = this.#models.get(id);
    if (!model) throw new ReferenceError(`Cannot use saved model ${id}: it was deleted, or never loaded.`);
    return model;
  }

  /** `StatefulPartitionedCall:1`, or without `:0`: which output of which node. */
  #output(graph: Deno.PointerValue, name: string): { node: Deno.PointerValue; output: number } {
    const [nodeName, index = "0"] = name.split(":");
    const node = this.c.TF_GraphOperationByName(graph, cString(nodeName)), output = Number(index);
    if (!node) throw new ReferenceError(`Cannot find "${nodeName}" in the saved model's graph.`);
    const count = this.c.TF_OperationNumOutputs(node);
    if (Number.isInteger(output) && output >= 0 && output < count) return { node, output };
    throw new RangeError(`Cannot use output ${index} of "${nodeName}" in the saved model's graph: it has ${count}.`);
  }
}
