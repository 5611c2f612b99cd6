/** Memory that JavaScript and oneDNN both see, aligned for the processor's widest registers. */

const CACHE_LINE = 64;

/** Some bytes, as the types that are needed of them. */
export class HostMemory {
  /** All of them. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #buffer: ArrayBuffer;
  readonly #offset: number;

  /** Zeros. */
  constructor(readonly byteLength: number) {
    this.#buffer = new ArrayBuffer(byteLength + CACHE_LINE);
    const address = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(new Uint8Array(this.#buffer))));
    this.#offset = -address & (CACHE_LINE - 1);
    this.bytes = new Uint8Array(this.#buffer, this.#offset, byteLength);
  }

  /** Such numbers as bytes. */
  static of(values: Float32Array | Int32Array | Int8Array): HostMemory {
    const memory = new HostMemory(values.byteLength);
    memory.bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return memory;
  }

  /** As float32 numbers. */
  get floats(): Float32Array<ArrayBuffer> {
    return new Float32Array(this.#buffer, this.#offset, Math.floor(this.byteLength / Float32Array.BYTES_PER_ELEMENT));
  }

  /** As int8 numbers. */
  get int8s(): Int8Array<ArrayBuffer> {
    return new Int8Array(this.#buffer, this.#offset, this.byteLength);
  }

  /** Gives it back at once: whatever still reads or writes it must be gone. */
  free(): void {
    this.#buffer.transfer(0);
  }
}
