/** Memory that steps use while they run. All steps of a GPU share it, as they run one after another. */

/** Buffers that grow. */
export class Scratch {
  readonly #buffers: GPUBuffer[] = [];
  #step?: GPUBuffer;
  #version = 0;

  /** On this device. */
  constructor(private readonly device: GPUDevice) {}

  /** Changes whenever a buffer is replaced by another one. */
  get version(): number {
    return this.#version;
  }

  /** What changes from step to step: integers. */
  get step(): GPUBuffer {
    return this.#step!;
  }

  /** The i-th buffer. */
  buffer(i: number): GPUBuffer {
    return this.#buffers[i];
  }

  /** Makes the buffers at least as large as this, in bytes. */
  reserve(bytes: readonly number[], stepBytes: number): void {
    for (const [i, needed] of bytes.entries()) this.#buffers[i] = this.#grown(this.#buffers[i], needed);
    this.#step = this.#grown(this.#step, stepBytes);
  }

  /** Frees all of it. */
  dispose(): void {
    for (const buffer of this.#buffers.splice(0)) buffer.destroy();
    this.#step?.destroy();
    this.#step = undefined;
    this.#version++;
  }

  #grown(buffer: GPUBuffer | undefined, bytes: number): GPUBuffer {
    if (buffer && buffer.size >= bytes) return buffer;
    buffer?.destroy();
    this.#version++;
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    return this.device.createBuffer({ size: Math.max(256, Math.ceil(bytes / 16) * 16), usage });
  }
}
