/**
 * The native half of tfjs-node, in TypeScript: what its kernels call `binding` (`TFJSBinding` in tfjs-node 4.22), over
 * libtensorflow's C API. And what tfjs-node does not have: captured functions.
 *
 * Numeric tensors and every operation on them are here; strings and saved models are not.
 */

import { type Attribute, attributeSetters, AttributeType, DataType, interned, setAttribute } from "./attributes.ts";
import { Capture, type CapturedFunction } from "./capture.ts";
import { Context, type Threads } from "./context.ts";
import { HostTensor, type HostValues } from "./host_tensor.ts";
import type { Library, Status, Symbols } from "./library.ts";
import { deviceTensor, type TensorMetadata, Tensors } from "./tensors.ts";
import type { OperationTime } from "./trace.ts";

/** A context of libtensorflow and the tensors in it, by number. */
export class TensorflowBinding {
  readonly TF_FLOAT = DataType.float;
  readonly TF_INT32 = DataType.int32;
  readonly TF_INT64 = DataType.int64;
  readonly TF_BOOL = DataType.bool;
  readonly TF_COMPLEX64 = DataType.complex64;
  readonly TF_STRING = DataType.string;
  readonly TF_RESOURCE = DataType.resource;
  readonly TF_UINT8 = DataType.uint8;
  readonly TF_ATTR_STRING = AttributeType.string;
  readonly TF_ATTR_INT = AttributeType.int;
  readonly TF_ATTR_FLOAT = AttributeType.float;
  readonly TF_ATTR_BOOL = AttributeType.bool;
  readonly TF_ATTR_TYPE = AttributeType.type;
  readonly TF_ATTR_SHAPE = AttributeType.shape;
  readonly TF_ATTR_RESOURCE = AttributeType.resource;
  /** TensorFlow's version. */
  readonly TF_Version: string;

  readonly #library: Library;
  readonly #c: Symbols;
  readonly #status: Status;
  readonly #setters;
  readonly #threads: Threads;
  readonly #contexts = new Map<string, Context>();
  readonly #context: Context;
  readonly #tensors = new Tensors();
  readonly #outputCount = new Int32Array(1);
  #capture: Capture | null = null;

  /** A new context in an opened library; operations use `threads`. */
  constructor(library: Library, threads: Threads) {
    this.#library = library;
    this.#c = library.c;
    this.#status = library.newStatus();
    this.#setters = attributeSetters(library.c);
    this.#threads = threads;
    this.#context = this.#contextWith(threads);
    this.TF_Version = library.version;
  }

  /** True when operations run on a GPU. */
  isUsingGpuDevice(): boolean {
    return this.#context.device.includes("GPU");
  }

  /** How many tensors are alive. */
  getNumOfTensors(): number {
    return this.#tensors.size;
  }

  /** Puts host values onto the device. */
  createTensor(shape: number[], dtype: number, values: HostValues): number {
    using host = HostTensor.from(this.#c, dtype, shape, values);
    return this.#tensors.add({ handle: this.#toDevice(host, dtype), dtype, shape: [...shape] });
  }

  /**
   * Puts values onto the device that `fill` writes straight into native memory: for weights, which are too large to be
   * held twice.
   */
  async createFilledTensor(
    shape: number[],
    dtype: number,
    fill: (bytes: Uint8Array<ArrayBuffer>) => Promise<void> | void,
  ): Promise<TensorMetadata> {
    using host = HostTensor.allocate(this.#c, dtype, shape);
    await fill(host.bytes);
    return this.#tensors.describe({ handle: this.#toDevice(host, dtype), dtype, shape: [...shape] });
  }

  /** Frees a tensor. */
  deleteTensor(id: number): void {
    const tensor = this.#tensors.remove(id);
    if ("handle" in tensor) this.#c.TFE_DeleteTensorHandle(tensor.handle);
  }

  /** A tensor's values, on the host. Throws a TypeError for one that a capture is to compute. */
  tensorDataSync(id: number): Float32Array | Int32Array | Uint8Array | BigInt64Array {
    const { handle, dtype } = this.#tensors.onDevice(id, "read");
    using host = HostTensor.resolve(this.#c, handle, this.#status);
    return host.values(dtype);
  }

  /** Runs an operation; inside a capture, puts it into the graph instead. Throws TensorFlow's message. */
  executeOp(
    name: string,
    attributes: readonly Attribute[],
    inputIds: readonly number[],
    outputCount: number,
  ): TensorMetadata[] {
    if (this.#capture) {
      const outputs = this.#capture.addOperation(name, attributes, inputIds, outputCount);
      return outputs.map((output) => this.#tensors.describe(output));
    }
    const operation = this.#newOperation(this.#context, name, inputIds);
    try {
      for (const attribute of attributes) setAttribute(this.#setters.eager, operation, attribute);
      const outputs = new BigUint64Array(outputCount);
      this.#outputCount[0] = outputCount;
      this.#c.TFE_Execute(operation, outputs, this.#outputCount, this.#status.pointer);
      this.#status.check();
      return this.#addOutputs(outputs);
    } finally {
      this.#c.TFE_DeleteOp(operation);
    }
  }

  /** True while operations are put into a graph instead of being run. */
  get isCapturing(): boolean {
    return this.#capture !== null;
  }

  /**
   * Runs `build` without computing anything and keeps its operations as one function of `inputIds`. `build` gets
   * stand-ins for the inputs, in order, which it disposes of, and returns its outputs. Tensors from outside that it
   * uses become part of the function: they must live as long as it does.
   */
  capture(
    name: string,
    inputIds: readonly number[],
    build: (standIns: TensorMetadata[]) => number[],
    scope: () => string,
  ): CapturedFunction {
    using capture = new Capture(this.#c, this.#status, this.#tensors, scope);
    return capture.toFunction(name, this.#record(capture, inputIds, build));
  }

  /** Captures, but runs what was captured once and says when each operation ran. */
  async trace(
    inputIds: readonly number[],
    build: (standIns: TensorMetadata[]) => number[],
    scope: () => string,
    threads: Threads,
  ): Promise<OperationTime[]> {
    using capture = new Capture(this.#c, this.#status, this.#tensors, scope);
    return await capture.trace(inputIds, this.#record(capture, inputIds, build), threads);
  }

  #record(capture: Capture, inputIds: readonly number[], build: (standIns: TensorMetadata[]) => number[]): number[] {
    if (this.#capture) throw new TypeError("Cannot capture inside a capture.");
    const standIns = inputIds.map((id) => this.#tensors.describe(capture.addInput(id)));
    this.#capture = capture;
    try {
      return build(standIns);
    } finally {
      this.#capture = null;
    }
  }

  /** Runs a captured function on a thread of its own; this one stays free meanwhile. Throws TensorFlow's message. */
  async run(fn: CapturedFunction, inputIds: readonly number[], threads = this.#threads): Promise<TensorMetadata[]> {
    const context = this.#contextWith(threads);
    context.add(fn.name, fn.pointer);
    const operation = this.#newOperation(context, fn.name, [...inputIds, ...fn.capturedIds]);
    using status = this.#library.newStatus(); // its own: other calls go on meanwhile
    try {
      const outputs = new BigUint64Array(fn.outputCount);
      await this.#c.executeInBackground(operation, outputs, new Int32Array([fn.outputCount]), status.pointer);
      status.check();
      return this.#addOutputs(outputs);
    } finally {
      this.#c.TFE_DeleteOp(operation);
    }
  }

  /** Frees a captured function. */
  deleteFunction(fn: CapturedFunction): void {
    for (const context of this.#contexts.values()) context.remove(fn.name);
    this.#c.TF_DeleteFunction(fn.pointer);
  }

  #contextWith(threads: Threads): Context {
    const key = `${threads.intraOp}x${threads.interOp}`;
    let context = this.#contexts.get(key);
    if (!context) this.#contexts.set(key, context = new Context(this.#c, this.#status, threads));
    return context;
  }

  #newOperation(context: Context, name: string, inputIds: readonly number[]): Deno.PointerValue {
    const operation = this.#c.TFE_NewOp(context.pointer, interned(name), this.#status.pointer);
    this.#status.check();
    try {
      for (const id of inputIds) {
        this.#c.TFE_OpAddInput(operation, this.#tensors.onDevice(id, "run").handle, this.#status.pointer);
        this.#status.check();
      }
      return operation;
    } catch (error) {
      this.#c.TFE_DeleteOp(operation);
      throw error;
    }
  }

  #toDevice(host: HostTensor, dtype: number): Deno.PointerValue {
    const handle = this.#c.TFE_NewTensorHandle(host.pointer, this.#status.pointer);
    this.#status.check();
    // On a GPU, TensorFlow keeps int32 in host memory: it holds shapes and axes.
    if (!this.isUsingGpuDevice() || dtype === DataType.int32) return handle;
    const device = interned(this.#context.device);
    const moved = this.#c.TFE_TensorHandleCopyToDevice(handle, this.#context.pointer, device, this.#status.pointer);
    this.#c.TFE_DeleteTensorHandle(handle);
    this.#status.check();
    return moved;
  }

  #addOutputs(handles: BigUint64Array): TensorMetadata[] {
    return Array.from(handles, (address) => {
      const handle = Deno.UnsafePointer.create(address);
      return this.#tensors.describe(deviceTensor(this.#c, handle, this.#status));
    });
  }
}
