/** tfjs on libtensorflow: tfjs-node's kernels and backend class, registered with tfjs as `tensorflow`. */

import * as tf from "@tensorflow/tfjs";
import { createRequire } from "node:module";
import { onBackend } from "../../backend/current.ts";
import { tidyName } from "../../backend/tidy_name.ts";
import { singleFlight } from "../../util/single_flight.ts";
import { type Attribute, DataType } from "../capi/attributes.ts";
import { type Blocks, type RunOptions, TensorflowBinding } from "../capi/binding.ts";
import type { CapturedFunction } from "../capi/capture.ts";
import { CollectedTensors } from "./collection.ts";
import type { Threads } from "../capi/context.ts";
import { ensureLibtensorflow } from "../install/install.ts";
import { Library } from "../capi/library.ts";
import type { Libtensorflow } from "../install/locate.ts";
import { patchKernels, patchNodeUtil } from "./patches.ts";
import type { OperationTime } from "../capi/trace.ts";
import type { TensorMetadata } from "../capi/tensors.ts";
import { Lifetime } from "../../util/lifetime.ts";

/** How to open TensorFlow. */
export interface TensorflowOptions {
  /** Threads inside one operation, from 1 to the machine's cores. Default: all of them. */
  threads?: number;
  /** If it must be installed: the build for NVIDIA GPUs. Default: the one for CPUs. */
  cuda?: boolean;
  /** Called with one line that says what is installed, and how large it is. Default: stderr. */
  log?: (line: string) => void;
  /** Called with how far the installation is, in bytes. */
  onProgress?: (done: number, total: number) => void;
}

/** Its name in tfjs. */
export const TENSORFLOW = { name: "tensorflow" } as const;

let opened: TensorflowBackend | undefined;

const openOnce = singleFlight(async (options: TensorflowOptions) => {
  const { threads = navigator.hardwareConcurrency } = options;
  return opened ??= new TensorflowBackend(await ensureLibtensorflow(options), { intraOp: threads, interOp: 1 });
});

/**
 * Finds or installs libtensorflow and makes tfjs run on it: once a process, because tfjs has one backend of a name. Who
 * comes later, or at the same time, gets what the first one opens, whatever the options.
 */
export async function openTensorflow(options: TensorflowOptions = {}): Promise<TensorflowBackend> {
  const backend = await openOnce(options);
  await tf.setBackend("tensorflow");
  return backend;
}

/** What we use of tfjs-node's backend class. */
interface NodeBackend {
  createOutputTensor(metadata: TensorMetadata): tf.Tensor;
  getInputTensorIds(tensors: readonly tf.Tensor[]): number[];
}

/** GPT-2's products cut into more pieces than this would be too small to be worth their calls. */
const MOST = 4;

/** tfjs on libtensorflow, with what tfjs has no words for: any operation by name, captured functions. */
export class TensorflowBackend {
  /** The native half. */
  readonly binding: TensorflowBinding;
  /** True when operations run on a GPU. */
  readonly onGpu: boolean;
  /** How many operations are worth running side by side: one for each core, up to {@link MOST}, and one on a GPU. */
  readonly sideBySide: number;
  /** True inside a capture that is to run often, so that its kernels had better keep packed copies of weights. */
  packs = false;
  readonly #node: NodeBackend;
  readonly #tensors: CollectedTensors;
  #captures = 0;

  /**
   * Opens libtensorflow and registers tfjs's backend `tensorflow`; once a process. Throws what the loader says if the
   * library cannot be opened.
   */
  constructor(readonly paths: Libtensorflow, readonly threads: Threads) {
    this.binding = new TensorflowBinding(new Library(paths), threads);
    this.onGpu = this.binding.isUsingGpuDevice();
    this.sideBySide = this.onGpu ? 1 : Math.min(threads.intraOp, MOST);
    const require = createRequire(import.meta.url);
    patchNodeUtil(require("node:util"));
    // The package's index would load its native part, which is what the binding replaces.
    require("@tensorflow/tfjs-node-gpu/dist/register_all_kernels.js");
    patchKernels(tf);
    const { NodeJSKernelBackend } = require("@tensorflow/tfjs-node-gpu/dist/nodejs_kernel_backend.js");
    const node = new NodeJSKernelBackend(this.binding, "@tensorflow/tfjs-node-gpu");
    this.#tensors = new CollectedTensors(node, (id) => this.binding.deleteTensor(id));
    node.tensorMap = this.#tensors;
    const { createOutputTensor } = node; // tfjs notes for each tensor which backend was current when it was made
    node.createOutputTensor = (metadata: TensorMetadata) =>
      onBackend(TENSORFLOW, () => createOutputTensor.call(node, metadata));
    // Layers models may be saved to and loaded from `file://` paths.
    const { nodeFileSystemRouter } = require("@tensorflow/tfjs-node-gpu/dist/io/file_system.js");
    tf.io.registerSaveRouter(nodeFileSystemRouter);
    tf.io.registerLoadRouter(nodeFileSystemRouter);
    this.#node = node;
    tf.registerBackend("tensorflow", () => node, 3); // last: what fails before this can be tried again
  }

  /**
   * tfjs-node's own additions to tfjs, what it calls `tf.node`: `loadSavedModel`, `decodeImage`, `encodePng`,
   * `tensorBoard`, `summaryFileWriter` and others. tfjs must be set to this backend.
   */
  get node(): typeof import("@tensorflow/tfjs-node-gpu").node {
    return createRequire(import.meta.url)("@tensorflow/tfjs-node-gpu/dist/node.js").node;
  }

  /** How many tensors nobody disposed of, so that they had to be freed when the garbage collector found them. */
  get collectedTensors(): number {
    return this.#tensors.collected;
  }

  /** Runs any TensorFlow operation by its name. Throws TensorFlow's message. */
  execute(op: string, attributes: readonly Attribute[], inputs: readonly tf.Tensor[], outputCount = 1): tf.Tensor[] {
    return this.executeRaw(op, attributes, inputs, outputCount).map((output) => this.wrap(output));
  }

  /** The same for tensors that tfjs has no dtype for, such as int8: what comes back must be freed or wrapped. */
  executeRaw(
    op: string,
    attributes: readonly Attribute[],
    inputs: readonly (tf.Tensor | TensorMetadata)[],
    outputCount = 1,
  ): TensorMetadata[] {
    const ids = inputs.map((input) => input instanceof tf.Tensor ? this.#node.getInputTensorIds([input])[0] : input.id);
    return this.binding.executeOp(op, attributes, ids, outputCount);
  }

  /** A copy of a tensor; see {@link TensorflowBinding.copyToDevice}. */
  copyToDevice(x: tf.Tensor): tf.Tensor {
    return this.wrap(this.binding.copyToDevice(this.#node.getInputTensorIds([x])[0]));
  }

  /** A variable that holds the values of a tensor, which stays the caller's; see {@link TensorflowBinding.createVariable}. */
  createVariable(values: tf.Tensor): tf.Tensor {
    return this.wrap(this.binding.createVariable(this.#node.getInputTensorIds([values])[0]));
  }

  /** A raw tensor as one of tfjs, which frees it from then on. */
  wrap(raw: TensorMetadata): tf.Tensor {
    return this.#node.createOutputTensor(raw);
  }

  /** Frees raw tensors. */
  free(raw: readonly TensorMetadata[]): void {
    for (const { id } of raw) this.binding.deleteTensor(id);
  }

  /** A raw tensor of values that are on the host: its bytes, where JavaScript has no array of the type. */
  createRaw(shape: number[], dtype: number, values: ArrayBufferView<ArrayBuffer>): TensorMetadata {
    return { id: this.binding.createTensor(shape, dtype, values), shape, dtype };
  }

  /** A float32 tensor whose values `fill` writes straight into TensorFlow's memory. */
  async createTensor(shape: number[], fill: (values: Float32Array) => Promise<void> | void): Promise<tf.Tensor> {
    const fillBytes = (bytes: Uint8Array<ArrayBuffer>) =>
      fill(new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / Float32Array.BYTES_PER_ELEMENT));
    return this.#node.createOutputTensor(await this.binding.createFilledTensor(shape, DataType.float, fillBytes));
  }

  /**
   * Some rows of a float32 tensor, where TensorFlow keeps them: its first dimension in as many parts. They end with the tensor. Not
   * on a GPU.
   */
  partsOf(x: tf.Tensor, count = 1): Uint8Array<ArrayBuffer>[] {
    const [id] = this.#node.getInputTensorIds([x]), length = x.size * Float32Array.BYTES_PER_ELEMENT / count;
    return Array.from({ length: count }, (_, i) => this.binding.bytesOf(id, i * length, length));
  }

  /** Copies bytes of one tensor into another, or the same one elsewhere; see {@link TensorflowBinding.copyBytes}. Not on a GPU. */
  copyBytes(target: tf.Tensor, source: tf.Tensor, blocks: readonly Blocks[]): void {
    const [to, from] = this.#node.getInputTensorIds([target, source]);
    this.binding.copyBytes(to, from, blocks);
  }

  /**
   * Runs `build` on stand-ins for `inputs`, computing nothing, and keeps its operations as one function. Other tensors
   * that `build` uses must outlive the function. TensorFlow's errors name the enclosing `tf.tidy("name", …)`.
   * `packs` says that the function is to run often: see {@link TensorflowBackend.packs}.
   */
  capture(
    inputs: readonly tf.Tensor[],
    build: (standIns: tf.Tensor[]) => tf.Tensor[],
    { packs = false }: { packs?: boolean } = {},
  ): Captured {
    return this.#stagedAs(inputs, build, packs, (ids, staged, keys) => {
      const fn = this.binding.capture(`captured_${this.#captures++}`, ids, staged, tidyName);
      return new Captured(this.binding, this.#node, fn, fn.capturedIds.map((id) => keys.get(id)));
    });
  }

  /** Captures as for a function that is to run often, runs that once, and says when each of its operations ran. */
  async trace(
    inputs: readonly tf.Tensor[],
    build: (standIns: tf.Tensor[]) => tf.Tensor[],
    threads: Threads,
  ): Promise<OperationTime[]> {
    return await this.#stagedAs(
      inputs,
      build,
      true,
      (ids, staged) => this.binding.trace(ids, staged, tidyName, threads),
    );
  }

  /**
   * Lends tensors to `work` by their numbers, `build` in terms of numbers, and, by number, tfjs's keys of all tensors that
   * went into operations.
   */
  #stagedAs<R>(
    inputs: readonly tf.Tensor[],
    build: (standIns: tf.Tensor[]) => tf.Tensor[],
    packs: boolean,
    work: (
      inputIds: number[],
      staged: (standIns: TensorMetadata[]) => number[],
      keys: ReadonlyMap<number, object>,
    ) => R,
  ): R {
    let symbolic: tf.Tensor[] = [];
    const keys = new Map<number, object>(), { getInputTensorIds } = this.#node;
    this.#node.getInputTensorIds = (tensors) => {
      const ids = getInputTensorIds.call(this.#node, tensors);
      tensors.forEach(({ dataId }, i) => keys.set(ids[i], dataId));
      return ids;
    };
    this.packs = packs;
    try {
      return work(this.#node.getInputTensorIds(inputs), (standIns) => {
        symbolic = standIns.map((metadata) => this.#node.createOutputTensor(metadata));
        const outputs = onBackend(TENSORFLOW, () => tf.tidy(() => build(symbolic)));
        symbolic.push(...outputs);
        return this.#node.getInputTensorIds(outputs);
      }, keys);
    } finally {
      this.packs = false;
      this.#node.getInputTensorIds = getInputTensorIds;
      tf.dispose(symbolic);
    }
  }
}

/** A captured function over tensors. */
export class Captured {
  readonly #lifetime = new Lifetime("this captured function", () => this.binding.deleteFunction(this.fn));

  /** Made by {@link TensorflowBackend.capture}. */
  constructor(
    private readonly binding: TensorflowBinding,
    private readonly node: NodeBackend,
    private readonly fn: CapturedFunction,
    /** Keeps the tensors that the function uses from being collected. */
    protected readonly used: unknown,
  ) {}

  /**
   * Runs the function on a thread of its own. The inputs are those of the capture, in order; other sizes are allowed
   * where none of its constants depends on them.
   */
  async run(inputs: readonly tf.Tensor[], options?: RunOptions): Promise<tf.Tensor[]> {
    using _ = this.#lifetime.use();
    const outputs = await this.binding.run(this.fn, this.node.getInputTensorIds(inputs), options);
    return outputs.map((output) => this.node.createOutputTensor(output));
  }

  /**
   * Runs the function on each of `inputs`, one after the other; from the second on with the first output of the run before as first
   * input. Each is asked for while the one before runs; the wait is at the end.
   */
  async runInTurn(inputs: Iterable<readonly tf.Tensor[]>, options?: RunOptions): Promise<tf.Tensor[][]> {
    using _ = this.#lifetime.use();
    const ids = Iterator.from(inputs).map((each) => this.node.getInputTensorIds(each));
    const outputs = await this.binding.runInTurn(this.fn, ids, options);
    return outputs.map((each) => each.map((output) => this.node.createOutputTensor(output)));
  }

  /** Frees the function, once the runs that are under way have ended; later ones are refused. */
  dispose(): void {
    this.#lifetime.end();
  }
}
