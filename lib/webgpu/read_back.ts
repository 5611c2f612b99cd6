/** Bytes from the GPU, without waiting longer than it takes. */

import { DENO_VERSION } from "../util/runtime.ts";

/**
 * Whether a buffer's bytes can be had as soon as `mapAsync` returns, before its promise resolves.
 *
 * In Deno `mapAsync` waits for the GPU on the calling thread, so the buffer is mapped when it returns; the promise then
 * resolves a whole timer tick of 10 ms later, longer than ten steps of a small batch take. `getMappedRange` can be called
 * at once, but only on a buffer that was mapped before: on a new one that ends the process. This was tried with the
 * versions named here; on all others reading waits for the promise, which is right everywhere.
 */
export const READS_EARLY = /^2\.9\./.test(DENO_VERSION ?? "");

/** A piece of a buffer, in multiples of 4 bytes. */
export interface Piece {
  buffer: GPUBuffer;
  byteOffset: number;
  byteLength: number;
}

/** Reads pieces of GPU buffers, through staging buffers that it keeps. */
export class ReadBack {
  readonly #free: GPUBuffer[] = [];

  /** Reads on this device. */
  constructor(private readonly device: GPUDevice) {}

  /**
   * Ends the recording `encoder` with copies of these pieces of buffers, submits it and returns the pieces. What follows on
   * this thread runs after the GPU is done where Deno allows it.
   */
  async submitAndRead(encoder: GPUCommandEncoder, pieces: readonly Piece[]): Promise<ArrayBuffer[]> {
    if (pieces.length === 0) {
      this.device.queue.submit([encoder.finish()]);
      return [];
    }
    const byteLength = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
    const staging = await this.#acquire(byteLength);
    let begin = 0;
    const begins = pieces.map(({ buffer, byteOffset, byteLength }) => {
      encoder.copyBufferToBuffer(buffer, byteOffset, staging, begin, byteLength);
      begin += byteLength;
      return begin - byteLength;
    });
    this.device.queue.submit([encoder.finish()]);
    const mapped = staging.mapAsync(GPUMapMode.READ);
    if (READS_EARLY) mapped.catch(() => {}); // when it fails, getMappedRange throws too
    else await mapped;
    const bytes = staging.getMappedRange(0, byteLength);
    const read = pieces.map(({ byteLength }, i) => bytes.slice(begins[i], begins[i] + byteLength));
    staging.unmap();
    this.#free.push(staging);
    return read;
  }

  /** Frees the staging buffers. */
  dispose(): void {
    for (const buffer of this.#free.splice(0)) buffer.destroy();
  }

  /** A staging buffer of at least `byteLength` bytes, mapped once before. */
  async #acquire(byteLength: number): Promise<GPUBuffer> {
    const i = this.#free.findIndex((buffer) => buffer.size >= byteLength);
    if (i >= 0) return this.#free.splice(i, 1)[0];
    const size = 2 ** Math.ceil(Math.log2(Math.max(256, byteLength)));
    const buffer = this.device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    if (READS_EARLY) {
      await buffer.mapAsync(GPUMapMode.READ);
      buffer.unmap();
    }
    return buffer;
  }
}
