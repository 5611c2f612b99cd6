/**
 * The native half of tfjs-node, in TypeScript: what its kernels call `binding` (`TFJSBinding` in tfjs-node 4.22), over
 * libtensorflow's C API. And what tfjs-node does not have: captured functions.
 */

import { attr, type Attribute, AttributeType, DataType, interned } from "./attributes.ts";
import { Capture, type CapturedFunction } from "./capture.ts";
import { Context, type Threads } from "./context.ts";
import { HostTensor, type HostValues, type ReadValues, readValues } from "./host_tensor.ts";
import type { Library, Status, Symbols } from "./library.ts";
import { deviceTensor } from "./device_tensor.ts";
import { checkScatter, inputLengths, OpDefinitions, wrongOutputCount } from "./op_definitions.ts";
import { SavedModels } from "./saved_models.ts";
import { attributeSetters, setAttributes } from "./set_attributes.ts";
import { type TensorMetadata, Tensors } from "./tensors.ts";
import type { OperationTime } from "./trace.ts";

/** What TensorFlow keeps in host memory, also beside a GPU: int32 is for shapes and axes. */
const onHost: readonly number[] = [DataType.int32, DataType.string, DataType.resource];

/** The name of variables that end with the tensor that stands for them (`ResourceHandle::ANONYMOUS_NAME`). */
const ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347";

/** Bytes to be copied: `count` times `length` of them, the first where `from` and `to` say, each next one so many bytes further on. */
export interface Blocks {
  readonly count: number;
  readonly length: number;
  readonly from: { readonly first: number; readonly step: number };
  readonly to: { readonly first: number; readonly step: number };
}

/** How to run a captured function. */
export interface RunOptions {
  /** On how many threads. Default: the binding's. */
  threads?: Threads;
  /** Let XLA compile it when it first sees inputs of these shapes. Default: run its operations one by one. */
  compiled?: boolean;
}

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
  readonly #definitions: OpDefinitions;
  readonly #tensors = new Tensors();
  readonly #savedModels: SavedModels;
  /** Where operations leave their outputs; the same again and again, because a new one costs a tenth of a call. */
  #handles = new BigUint64Array(16);
  readonly #outputCount = new Int32Array(1);
  #capture: Capture | null = null;

  /** A new context in an opened library; operations use `threads`. */
  constructor(library: Library, threads: Threads) {
    this.#library = library;
    this.#c = library.c;
    this.#status = library.newStatus();
    this.#setters = attributeSetters(library.c, "TFE_OpSetAttr");
    this.#threads = threads;
    this.#context = this.#contextWith(threads);
    this.#definitions = new OpDefinitions(library.c, this.#status);
    this.#savedModels = new SavedModels(library.c, this.#status, threads);
    this.TF_Version = library.version;
  }

  /** True when operations run on a GPU. */
  isUsingGpuDevice(): boolean {
    return this.#context.device.includes("GPU");
  }

  /** Bytes that TensorFlow may take of the memory of the device on which operations run. */
  get deviceMemory(): number {
    return this.#context.memory;
  }

  /** How many tensors are alive. */
  getNumOfTensors(): number {
    return this.#tensors.size;
  }

  /** Puts host values onto the device: numbers, or strings as UTF-8 bytes. */
  createTensor(shape: number[], dtype: number, values: HostValues): number {
    using host = HostTensor.from(this.#c, dtype, shape, values, this.#status);
    return this.#tensors.add({ handle: this.#upload(host, dtype), dtype, shape: [...shape] });
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
    return this.#tensors.describe({ handle: this.#upload(host, dtype), dtype, shape: [...shape] });
  }

  /** Frees a tensor. */
  deleteTensor(id: number): void {
    const tensor = this.#tensors.remove(id);
    if ("handle" in tensor) this.#c.TFE_DeleteTensorHandle(tensor.handle);
  }

  /** A tensor's values, on the host. Throws a TypeError for one that a capture is to compute. */
  tensorDataSync(id: number): ReadValues {
    return readValues(this.#c, this.#tensors.onDevice(id, "read"), this.#status);
  }

  /**
   * Some bytes of a tensor in host memory: themselves, not a copy. They end with the tensor. Throws a TypeError for one that a
   * capture is to compute.
   */
  bytesOf(id: number, first: number, length: number): Uint8Array<ArrayBuffer> {
    using host = HostTensor.resolve(this.#c, this.#tensors.onDevice(id, "see").handle, this.#status);
    const place = Deno.UnsafePointer.create(host.block(first, length));
    return new Uint8Array(place ? Deno.UnsafePointerView.getArrayBuffer(place, length) : new ArrayBuffer(0));
  }

  /**
   * Copies bytes of one tensor into another, or the same one elsewhere, where both are in host memory. Throws a TypeError for a
   * tensor that a capture is to compute.
   */
  copyBytes(targetId: number, sourceId: number, all: readonly Blocks[]): void {
    const [target, source] = [targetId, sourceId].map((id) =>
      HostTensor.resolve(this.#c, this.#tensors.onDevice(id, "copy").handle, this.#status)
    );
    try {
      const [placeOf, placeFrom] = [target.block, source.block];
      for (const { count, length, from, to } of all) {
        const bytes = BigInt(length);
        for (let i = 0; i < count; i++) {
          const place = placeOf(to.first + i * to.step, length);
          this.#c.copyWithin(place, placeFrom(from.first + i * from.step, length), bytes);
        }
      }
    } finally {
      target[Symbol.dispose]();
      source[Symbol.dispose]();
    }
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
    if (!Number.isInteger(outputCount) || outputCount < 0) {
      throw new RangeError(`Cannot run ${name} for ${outputCount} outputs: that is not a whole number from 0 up.`);
    }
    const definition = this.#definitions.get(name);
    inputLengths(name, definition, attributes, inputIds.length);
    if (name === "ScatterNd") checkScatter(inputIds.map((id) => this.#tensors.get(id).shape));
    const operation = this.#newOperation(this.#context, name, (operation) => {
      for (const id of inputIds) {
        this.#c.TFE_OpAddInput(operation, this.#tensors.onDevice(id, "run").handle, this.#status.pointer);
        this.#status.check();
      }
    });
    try {
      setAttributes(this.#setters, operation, name, definition, attributes, this.#status);
      if (outputCount > this.#handles.length) this.#handles = new BigUint64Array(outputCount);
      const handles = this.#handles;
      this.#outputCount[0] = outputCount;
      this.#c.TFE_Execute(operation, handles, this.#outputCount, this.#status.pointer);
      this.#status.check();
      const outputs = this.#addOutputs(handles, this.#outputCount[0]);
      if (outputs.length === outputCount) return outputs;
      for (const { id } of outputs) this.deleteTensor(id);
      throw wrongOutputCount(name, outputs.length, outputCount);
    } finally {
      this.#c.TFE_DeleteOp(operation);
    }
  }

  /** A copy of a tensor where captured functions take it from: on a GPU that is its memory, int32 or not. */
  copyToDevice(id: number): TensorMetadata {
    const { handle, dtype, shape } = this.#tensors.onDevice(id, "copy"), { pointer, device } = this.#context;
    const copy = this.#c.TFE_TensorHandleCopyToDevice(handle, pointer, interned(device), this.#status.pointer);
    this.#status.check();
    return this.#tensors.describe({ handle: copy, dtype, shape: [...shape] });
  }

  /**
   * A variable that holds a tensor's values until something else is assigned to it. It ends with its tensor, whose shape is told
   * as that of the values. Until they change, both share their memory.
   */
  createVariable(valueId: number): TensorMetadata {
    const { dtype, shape } = this.#tensors.onDevice(valueId, "make a variable of");
    const [made] = this.executeOp(
      "VarHandleOp",
      [
        attr.type("dtype", dtype),
        attr.shape("shape", []),
        attr.string("container", ""),
        attr.string("shared_name", ANONYMOUS),
      ],
      [],
      1,
    );
    this.executeOp("AssignVariableOp", [attr.type("dtype", dtype)], [made.id, valueId], 0);
    const { handle } = this.#tensors.onDevice(made.id, "use");
    this.#tensors.remove(made.id);
    return this.#tensors.describe({ handle, dtype: DataType.resource, shape: [...shape] });
  }

  /**
   * Loads the part of a SavedModel that has all of `tags`, separated by commas, and gives its number. Throws
   * TensorFlow's message.
   */
  loadSavedModel(folder: string, tags: string): number {
    return this.#savedModels.load(folder, tags.split(","));
  }

  /** Frees a loaded model. */
  deleteSavedModel(id: number): void {
    this.#savedModels.delete(id);
  }

  /** How many models are loaded. */
  getNumOfSavedModels(): number {
    return this.#savedModels.size;
  }

  /** Runs a loaded model. `inputNames` and `outputNames` name outputs of nodes, `x:0`, separated by commas. */
  runSavedModel(
    id: number,
    inputIds: readonly number[],
    inputNames: string,
    outputNames: string,
  ): TensorMetadata[] {
    const inputs = inputIds.map((id) => this.#tensors.onDevice(id, "run a model on").handle);
    const names = [inputNames, outputNames].map((list) => list ? list.split(",") : []);
    return this.#savedModels.run(id, inputs, names[0], names[1]).map((handle) => {
      const moved = this.#toDevice(handle, this.#c.TFE_TensorHandleDataType(handle));
      return this.#tensors.describe(deviceTensor(this.#c, moved, this.#status));
    });
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
    using capture = new Capture(this.#c, this.#status, this.#definitions, this.#tensors, scope);
    const outputIds = this.#record(capture, inputIds, build), owned = this.#stackVectors(capture);
    try {
      return capture.toFunction(name, outputIds, owned);
    } catch (error) {
      for (const id of owned) this.deleteTensor(id);
      throw error;
    }
  }

  /** Captures, but runs what was captured once and says when each operation ran. */
  async trace(
    inputIds: readonly number[],
    build: (standIns: TensorMetadata[]) => number[],
    scope: () => string,
    threads: Threads,
  ): Promise<OperationTime[]> {
    using capture = new Capture(this.#c, this.#status, this.#definitions, this.#tensors, scope);
    const outputIds = this.#record(capture, inputIds, build), owned = this.#stackVectors(capture);
    try {
      return await capture.trace(inputIds, outputIds, threads);
    } finally {
      for (const id of owned) this.deleteTensor(id);
    }
  }

  /** See {@link Capture.stackVectors}. What XLA compiles for a GPU takes as long with fewer inputs, and longer to compile. */
  #stackVectors(capture: Capture): number[] {
    if (this.isUsingGpuDevice()) return [];
    return capture.stackVectors((ids) => {
      const attributes = [attr.type("T", DataType.float), attr.int("N", ids.length), attr.int("axis", 0)];
      return this.executeOp("Pack", attributes, ids, 1)[0].id;
    });
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
  async run(fn: CapturedFunction, inputIds: readonly number[], options: RunOptions = {}): Promise<TensorMetadata[]> {
    const context = this.#contextFor(options);
    const operation = this.#newCall(context, fn, [...this.#given(fn, inputIds), ...this.#handlesOf(fn.capturedIds)]);
    using status = this.#library.newStatus(); // its own: other calls go on meanwhile
    try {
      if (options.compiled) {
        this.#c.TFE_OpSetDevice(operation, interned(context.device), status.pointer);
        status.check();
        this.#c.TFE_OpSetAttrBool(operation, interned("_XlaMustCompile"), 1);
      }
      const outputs = new BigUint64Array(fn.outputCount);
      await this.#c.executeInBackground(operation, outputs, new Int32Array([fn.outputCount]), status.pointer);
      status.check();
      return this.#addOutputs(outputs, fn.outputCount);
    } finally {
      this.#c.TFE_DeleteOp(operation);
    }
  }

  /**
   * Runs a captured function on each of `inputs`, one after the other; from the second on with the first output of the run before
   * as first input. Each is asked for while the one before runs; the wait is at the end. Throws TensorFlow's message.
   */
  async runInTurn(
    fn: CapturedFunction,
    inputs: Iterable<readonly number[]>,
    options: RunOptions = {},
  ): Promise<TensorMetadata[][]> {
    const context = this.#contextFor(options), outputs: BigUint64Array<ArrayBuffer>[] = [];
    const captured = this.#handlesOf(fn.capturedIds);
    try {
      await context.queue(() => {
        for (const inputIds of inputs) {
          const given = this.#given(fn, inputIds), before = outputs.at(-1), own = new BigUint64Array(fn.outputCount);
          if (before) given[0] = before[0];
          const operation = this.#newCall(context, fn, [...given, ...captured]);
          this.#outputCount[0] = fn.outputCount;
          this.#c.TFE_Execute(operation, own, this.#outputCount, this.#status.pointer);
          this.#c.TFE_DeleteOp(operation);
          this.#status.check();
          outputs.push(own);
        }
      });
    } catch (error) {
      for (const handle of outputs.flatMap((own) => [...own])) {
        this.#c.TFE_DeleteTensorHandle(Deno.UnsafePointer.create(handle));
      }
      throw error;
    }
    return outputs.map((own) => this.#addOutputs(own, fn.outputCount));
  }

  /** Frees a captured function. */
  deleteFunction(fn: CapturedFunction): void {
    for (const context of this.#contexts.values()) context.remove(fn.name);
    this.#c.TF_DeleteFunction(fn.pointer);
    for (const id of fn.ownedIds) this.deleteTensor(id);
  }

  /** Contexts share what is in the processor's memory, but not what is on a GPU. */
  #contextFor({ threads = this.#threads }: RunOptions): Context {
    return this.isUsingGpuDevice() ? this.#context : this.#contextWith(threads);
  }

  #contextWith(threads: Threads): Context {
    const key = `${threads.intraOp}x${threads.interOp}`;
    let context = this.#contexts.get(key);
    if (!context) this.#contexts.set(key, context = new Context(this.#c, this.#status, threads));
    return context;
  }

  /** A captured function's explicit inputs. */
  #given(fn: CapturedFunction, inputIds: readonly number[]): bigint[] {
    if (inputIds.length !== fn.inputCount) {
      throw new RangeError(
        `Cannot run ${fn.name} on ${inputIds.length} tensors: it was captured with ${fn.inputCount}.`,
      );
    }
    return this.#handlesOf(inputIds);
  }

  #handlesOf(ids: readonly number[]): bigint[] {
    return ids.map((id) => Deno.UnsafePointer.value(this.#tensors.onDevice(id, "run").handle));
  }

  #newCall(context: Context, fn: CapturedFunction, inputs: readonly bigint[]): Deno.PointerValue {
    context.add(fn.name, fn.pointer);
    return this.#newOperation(context, fn.name, (operation) => {
      this.#c.TFE_OpAddInputList(operation, new BigUint64Array(inputs), inputs.length, this.#status.pointer);
      this.#status.check();
    });
  }

  #newOperation(context: Context, name: string, addInputs: (operation: Deno.PointerValue) => void): Deno.PointerValue {
    const operation = this.#c.TFE_NewOp(context.pointer, interned(name), this.#status.pointer);
    this.#status.check();
    try {
      addInputs(operation);
      return operation;
    } catch (error) {
      this.#c.TFE_DeleteOp(operation);
      throw error;
    }
  }

  #upload(host: HostTensor, dtype: number): Deno.PointerValue {
    const handle = this.#c.TFE_NewTensorHandle(host.pointer, this.#status.pointer);
    this.#status.check();
    return this.#toDevice(handle, dtype);
  }

  /** Moves a tensor from host memory to the device on which operations run. */
  #toDevice(handle: Deno.PointerValue, dtype: number): Deno.PointerValue {
    if (!this.isUsingGpuDevice() || onHost.includes(dtype)) return handle;
    const device = interned(this.#context.device);
    const moved = this.#c.TFE_TensorHandleCopyToDevice(handle, this.#context.pointer, device, this.#status.pointer);
    this.#c.TFE_DeleteTensorHandle(handle);
    this.#status.check();
    return moved;
  }

  #addOutputs(handles: BigUint64Array, count: number): TensorMetadata[] {
    const outputs = new Array<TensorMetadata>(count);
    for (let i = 0; i < count; i++) {
      const handle = Deno.UnsafePointer.create(handles[i]);
      outputs[i] = this.#tensors.describe(deviceTensor(this.#c, handle, this.#status));
    }
    return outputs;
  }
}
