/** Reads one safetensors file. Bytes are little-endian, as on every platform that Deno runs on. */

import { bfloat16ToFloat32, float16ToFloat32 } from "../util/half.ts";
import { quote } from "../util/quote.ts";
import { DTYPE_BYTES, parseHeader, SafetensorsError, type StoredDtype, type TensorInfo } from "./header.ts";

/** Tensors on disk, in one file or in several. Close them with `using` or `[Symbol.dispose]()`. */
export interface Weights extends Disposable {
  /** What there is, by name. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The notes their writer left. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Reads an F32, F16 or BF16 tensor, in row-major order, into `destination`, which has room for exactly it. */
  readFloat32Into(name: string, destination: Float32Array): Promise<void>;
  /** An F32, F16 or BF16 tensor in row-major order. */
  readFloat32(name: string): Promise<Float32Array<ArrayBuffer>>;
  /** An I8 tensor in row-major order. */
  readInt8(name: string): Promise<Int8Array<ArrayBuffer>>;
}

/**
 * Opens one file and checks its header against it. Throws {@link SafetensorsError}.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openSafetensors } from "./file.ts";
 *
 * using file = await openSafetensors("models/small/model.safetensors");
 * assert.deepEqual(file.tensors.get("transformer.wpe.weight")?.shape, [256, 192]);
 * const positions = await file.readFloat32("transformer.wpe.weight");
 * assert.equal(positions.length, 256 * 192);
 * ```
 */
export function openSafetensors(path: string): Promise<SafetensorsFile> {
  return SafetensorsFile.open(path);
}

/** Bytes that can be read at any position: of a file, or of what a browser keeps. */
export interface ByteSource extends Disposable {
  /** What it is called in errors. */
  readonly path: string;
  /** How many there are. */
  readonly size: number;
  /** Fills `bytes` from `position`. */
  read(position: number, bytes: Uint8Array): Promise<void>;
}

const MAX_HEADER_BYTES = 100_000_000;

/** Numbers converted at once: half a megabyte of 16-bit ones, which stays in the processor's cache. */
const CHUNK = 2 ** 18;

/** One open file. Made by {@link openSafetensors}. */
export class SafetensorsFile implements Weights {
  /** What it holds, by name, in the order of the header. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The notes its writer left. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly #path: string;
  readonly #reader: ByteSource;

  private constructor(reader: ByteSource, header: ReturnType<typeof parseHeader>) {
    this.#path = reader.path;
    this.#reader = reader;
    this.tensors = header.tensors;
    this.metadata = header.metadata;
  }

  /** What {@link openSafetensors} does. */
  static async open(path: string): Promise<SafetensorsFile> {
    return await SafetensorsFile.of(await Reader.open(path));
  }

  /** The same for bytes from wherever, which it takes over. */
  static async of(source: ByteSource): Promise<SafetensorsFile> {
    using opened = new DisposableStack();
    const reader = opened.use(source), { path } = reader;
    if (reader.size < 8) throw new SafetensorsError(path, `it is not a safetensors file: it has ${reader.size} bytes.`);
    const prefix = new BigUint64Array(1);
    await reader.read(0, bytesOf(prefix));
    const length = Number(prefix[0]);
    if (length > Math.min(MAX_HEADER_BYTES, reader.size - 8)) {
      throw new SafetensorsError(
        path,
        `it is not a whole safetensors file: it claims a header of ${length} bytes and has ${reader.size}. Download it again.`,
      );
    }
    const bytes = new Uint8Array(length);
    await reader.read(8, bytes);
    const header = parseHeader(bytes, { path, dataStart: 8 + length, fileSize: reader.size });
    opened.move();
    return new SafetensorsFile(reader, header);
  }

  /** Reads an F32, F16 or BF16 tensor, in row-major order, into `destination`, which has room for exactly it. */
  async readFloat32Into(name: string, destination: Float32Array): Promise<void> {
    const { dtype, byteOffset, byteLength } = this.#find(name, "F32", "F16", "BF16");
    const count = byteLength / DTYPE_BYTES[dtype];
    if (destination.length !== count) {
      throw new RangeError(
        `Cannot read ${quote(name)} into ${destination.length} numbers: it has ${count}. Pass an array of that length.`,
      );
    }
    if (dtype === "F32") return await this.#reader.read(byteOffset, bytesOf(destination));
    const widen = dtype === "F16" ? float16ToFloat32 : bfloat16ToFloat32;
    const buffer = new Uint16Array(Math.min(CHUNK, count));
    for (let done = 0; done < count; done += CHUNK) {
      const chunk = buffer.subarray(0, count - done);
      await this.#reader.read(byteOffset + 2 * done, bytesOf(chunk));
      widen(chunk, destination.subarray(done, done + chunk.length));
    }
  }

  /** An F32, F16 or BF16 tensor in row-major order. */
  async readFloat32(name: string): Promise<Float32Array<ArrayBuffer>> {
    const { dtype, byteLength } = this.#find(name, "F32", "F16", "BF16");
    const values = new Float32Array(byteLength / DTYPE_BYTES[dtype]);
    await this.readFloat32Into(name, values);
    return values;
  }

  /** An I8 tensor in row-major order. */
  async readInt8(name: string): Promise<Int8Array<ArrayBuffer>> {
    const { byteOffset, byteLength } = this.#find(name, "I8");
    const values = new Int8Array(byteLength);
    await this.#reader.read(byteOffset, bytesOf(values));
    return values;
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#reader[Symbol.dispose]();
  }

  #find(name: string, ...readable: StoredDtype[]): TensorInfo {
    const info = this.tensors.get(name);
    if (!info) throw new SafetensorsError(this.#path, `there is no tensor ${quote(name)}.`);
    if (readable.includes(info.dtype)) return info;
    throw new SafetensorsError(
      this.#path,
      `${quote(name)} is ${info.dtype}, and what can be read this way is ${readable.join(", ")}.`,
    );
  }
}

/** A file's bytes. */
class Reader implements ByteSource {
  #last: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(readonly path: string, readonly file: Deno.FsFile, readonly size: number) {}

  static async open(path: string): Promise<Reader> {
    const file = await Deno.open(path).catch((cause) => {
      const reason = cause instanceof Deno.errors.NotFound
        ? "there is no such file"
        : `it cannot be opened (${cause.name})`;
      throw new SafetensorsError(path, `${reason}.`, { cause });
    });
    return new Reader(path, file, (await file.stat()).size);
  }

  /** Fills `bytes` from `position`. Reads wait for each other, since a file has one cursor. */
  read(position: number, bytes: Uint8Array): Promise<void> {
    const result = this.#last.then(() => this.#readNow(position, bytes)).catch((cause) => {
      const reason = cause instanceof Deno.errors.BadResource ? "it was closed" : cause.message;
      throw new SafetensorsError(this.path, `${reason}.`, { cause });
    });
    this.#last = result.catch(() => {});
    return result;
  }

  async #readNow(position: number, bytes: Uint8Array): Promise<void> {
    await this.file.seek(position, Deno.SeekMode.Start);
    for (let filled = 0; filled < bytes.length;) {
      const count = await this.file.read(bytes.subarray(filled));
      if (count === null) throw new Error(`it ends ${bytes.length - filled} bytes too early`);
      filled += count;
    }
  }

  [Symbol.dispose](): void {
    if (!this.#closed) this.file.close();
    this.#closed = true;
  }
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
