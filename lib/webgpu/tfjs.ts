/** tfjs's WebGPU backend on a GPU of ours: its quirks under Deno, and what it has no words for. */

import * as tf from "@tensorflow/tfjs";
import { WebGPUBackend } from "@tensorflow/tfjs-backend-webgpu";
import type { Gpu } from "./device.ts";

/** What we use of tfjs's backend class beyond its public interface. */
interface Internals {
  readonly tensorMap: { get(dataId: object): { resource: GPUBuffer | null } };
  readonly commandQueueOwnedIds: WeakSet<object>;
  readonly commandEncoder: GPUCommandEncoder | null;
  readonly bufferManager: {
    numBytesUsed: number;
    numBytesAllocated: number;
    acquireBuffer(size: number, usage: number, mappedAtCreation: boolean): GPUBuffer;
    releaseBuffer(buffer: GPUBuffer, reuse?: boolean): void;
  };
  makeTensorInfo(shape: number[], dtype: tf.DataType): tf.TensorInfo;
  uploadToGPU(dataId: object): void;
  ensureCommandEncoderReady(): void;
  endComputePassEncoder(): void;
  submitQueue(): void;
}

/** Freed memory that is kept for the next tensor of that size: the cache of the next batch. tfjs itself keeps all. */
const POOL_BYTES = 2 ** 30;

/** tfjs on a GPU, registered as `webgpu`. */
export class TfjsOnGpu {
  readonly #tfjs: Internals;
  readonly #pipelines = new Map<string, GPUComputePipeline>();
  readonly #numbers = new WeakMap<GPUBuffer, number>();
  #lastNumber = 0;
  /** Whether there was memory for tensors of zeros: known some time after they were asked for. */
  readonly #zeros: Promise<Error | null>[] = [];
  /** Buffers that there was no memory for. */
  readonly #unusable = new WeakSet<GPUBuffer>();

  /** Registers the backend, in place of that of a GPU before it, whose tensors are lost. */
  constructor(readonly gpu: Gpu) {
    // The package registers itself with whatever GPU comes first and with a feature list that Deno refuses.
    tf.removeBackend("webgpu");
    const backend = new WebGPUBackend(gpu.device, gpu.device.adapterInfo);
    this.#tfjs = backend as unknown as Internals;
    this.#boundPool();
    this.#clearInsteadOfFilling();
    tf.registerBackend("webgpu", () => backend as unknown as tf.KernelBackend, 3);
  }

  /** A pipeline of this source, made once. Tools for looking into GPUs show the label. */
  pipeline(code: string, label: string): GPUComputePipeline {
    let pipeline = this.#pipelines.get(code);
    if (!pipeline) {
      const { device } = this.gpu, module = device.createShaderModule({ code });
      pipeline = device.createComputePipeline({ label, layout: "auto", compute: { module, entryPoint: "main" } });
      this.#pipelines.set(code, pipeline);
    }
    return pipeline;
  }

  /** The buffer that holds a tensor's values; they are brought there if need be. */
  bufferOf(tensor: tf.Tensor): GPUBuffer {
    this.#tfjs.uploadToGPU(tensor.dataId);
    return this.#tfjs.tensorMap.get(tensor.dataId).resource!;
  }

  /** Throws a RangeError if there was no memory for a tensor that was made of zeros since the last call. */
  async checkMemory(): Promise<void> {
    const [failed] = (await Promise.all(this.#zeros.splice(0))).filter((error) => error !== null);
    if (failed) throw failed;
  }

  /** Sends what tfjs has recorded and not yet sent: what is submitted next may depend on it. */
  flush(): void {
    this.#tfjs.endComputePassEncoder();
    if (this.#tfjs.commandEncoder) this.#tfjs.submitQueue();
  }

  /** A float32 tensor whose values `fill` writes into memory that the GPU can see, where there is such. */
  async createTensor(shape: number[], fill: (values: Float32Array) => Promise<void> | void): Promise<tf.Tensor> {
    const size = tf.util.sizeFromShape(shape), bytes = this.#bytesOf(shape), { device } = this.gpu;
    this.gpu.check();
    const info = this.#tfjs.makeTensorInfo(shape, "float32");
    const tensor = this.#tensorOf(info.dataId, shape, "float32");
    device.pushErrorScope("out-of-memory");
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST; // as tfjs's own
    const buffer = this.#tfjs.bufferManager.acquireBuffer(bytes, usage, true);
    this.#tfjs.tensorMap.get(info.dataId).resource = buffer;
    const isMapped = buffer.mapState === "mapped"; // not if it was used before
    try {
      if (await device.popErrorScope()) {
        this.#unusable.add(buffer);
        throw this.#noMemory(shape);
      }
      const values = isMapped ? new Float32Array(buffer.getMappedRange()) : new Float32Array(size);
      await fill(values);
      if (isMapped) buffer.unmap();
      else device.queue.writeBuffer(buffer, 0, values);
      return tensor;
    } catch (error) {
      if (isMapped) buffer.unmap();
      tensor.dispose();
      throw error;
    }
  }

  /** A number that no other buffer has. */
  numberOf(buffer: GPUBuffer): number {
    let number = this.#numbers.get(buffer);
    if (number === undefined) this.#numbers.set(buffer, number = ++this.#lastNumber);
    return number;
  }

  /** A tensor with whatever values its memory has. */
  empty(shape: number[], dtype: "float32" | "int32"): tf.Tensor {
    const { dataId } = this.#tfjs.makeTensorInfo(shape, dtype);
    this.#tfjs.uploadToGPU(dataId);
    return this.#tensorOf(dataId, shape, dtype);
  }

  /** A tensor of this backend, whichever is current. */
  #tensorOf(dataId: object, shape: number[], dtype: tf.DataType): tf.Tensor {
    return tf.engine().makeTensorFromDataId(dataId, shape, dtype, this.#tfjs as unknown as tf.KernelBackend);
  }

  /** tfjs keeps every buffer that it ever made; this gives back what is beyond {@link POOL_BYTES}. */
  #boundPool(): void {
    const manager = this.#tfjs.bufferManager, release = manager.releaseBuffer.bind(manager);
    manager.releaseBuffer = (buffer, reuse = true) => {
      const free = manager.numBytesAllocated - manager.numBytesUsed;
      release(buffer, reuse && free + buffer.size <= POOL_BYTES && !this.#unusable.has(buffer));
    };
  }

  /** Zeros without a kernel: a cache has dozens of tensors, and a dispatch of its own for each takes milliseconds. */
  #clearInsteadOfFilling(): void {
    const plain = tf.getKernel("Fill", "webgpu"), tfjs = this.#tfjs;
    tf.unregisterKernel("Fill", "webgpu");
    tf.registerKernel({
      ...plain,
      kernelFunc: (call) => {
        const { shape, value, dtype = "float32" } = call.attrs as unknown as tf.FillAttrs;
        if (value !== 0 || dtype !== "float32" || tf.util.sizeFromShape(shape) === 0) return plain.kernelFunc(call);
        this.#bytesOf(shape); // throws if it is too large
        const info = tfjs.makeTensorInfo(shape, dtype), { device } = this.gpu;
        device.pushErrorScope("out-of-memory");
        tfjs.uploadToGPU(info.dataId);
        const buffer = tfjs.tensorMap.get(info.dataId).resource!;
        this.#zeros.push(
          device.popErrorScope().then((error) => {
            if (error) this.#unusable.add(buffer);
            return error && this.#noMemory(shape);
          }),
        );
        tfjs.ensureCommandEncoderReady();
        tfjs.endComputePassEncoder();
        tfjs.commandEncoder!.clearBuffer(buffer);
        tfjs.commandQueueOwnedIds.add(info.dataId); // not to be reused before this was sent
        return info;
      },
    });
  }

  /** Throws a RangeError if a buffer cannot be that large. */
  #bytesOf(shape: number[]): number {
    const bytes = tf.util.sizeFromShape(shape) * Float32Array.BYTES_PER_ELEMENT;
    const { device: { limits: { maxBufferSize } }, name } = this.gpu;
    if (bytes <= maxBufferSize) return bytes;
    throw new RangeError(
      `Cannot put a tensor [${shape}] of ${bytes} bytes on the GPU (${name}): it takes ${maxBufferSize} at most. ` +
        "Use fewer rows or tokens, a smaller model or another backend.",
    );
  }

  #noMemory(shape: number[]): RangeError {
    const bytes = this.#bytesOf(shape);
    return new RangeError(
      `The GPU (${this.gpu.name}) has no memory left for a tensor [${shape}] of ${bytes} bytes. ` +
        "Use fewer rows or tokens, or a smaller model.",
    );
  }
}
