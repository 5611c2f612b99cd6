/** Writes safetensors files. */

import { writeAll, writeFile } from "../util/files.ts";
import { float32ToBfloat16, float32ToFloat16 } from "../util/half.ts";
import { quote } from "../util/quote.ts";
import { DTYPE_BYTES } from "./header.ts";

/** A tensor to write, before its values are known: its shape, and the type that they are stored as. */
export interface TensorDeclaration {
  /** F32, F16 and BF16 take float32 values, I8 int8 ones. */
  readonly dtype: "F32" | "F16" | "BF16" | "I8";
  /** Its dimensions. */
  readonly shape: readonly number[];
}

/** A tensor to write: its values in row-major order, and the type they are stored as. */
export type TensorData = TensorDeclaration & { readonly data: Float32Array | Int8Array };

/** Numbers converted at once. */
const CHUNK = 2 ** 20;

/**
 * Writes tensors and notes to `path`, whole or not at all: what stood there before stays until all is on disk. Float32
 * values are rounded to the nearest of the type asked for; in F16, what lies beyond ±65,504 becomes infinite.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openSafetensors, writeSafetensors } from "./reader.ts";
 *
 * const path = await Deno.makeTempFile({ suffix: ".safetensors" });
 * await writeSafetensors(path, new Map([["a", { dtype: "F16", shape: [2], data: new Float32Array([1, -0.5]) }]]));
 * using file = await openSafetensors(path);
 * assert.deepEqual([...await file.readFloat32("a")], [1, -0.5]);
 * await Deno.remove(path);
 * ```
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, TensorData>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  await streamSafetensors(path, tensors, metadata, async (put) => {
    for (const [name, { data }] of tensors) await put(name, data);
  });
}

/**
 * The same for tensors that are too many to be in memory at once: `write` hands over each of the declared ones, in any
 * order, one after the other. Throws a RangeError for one that was not declared, came before, has another number of
 * values or another kind of them, and if one is missing in the end.
 *
 * @example
 * ```ts
 * import { openSafetensors, streamSafetensors } from "./reader.ts";
 *
 * const path = await Deno.makeTempFile({ suffix: ".safetensors" });
 * const declared = new Map([["a", { dtype: "F16", shape: [2] }], ["b", { dtype: "I8", shape: [1] }]] as const);
 * await streamSafetensors(path, declared, {}, async (put) => {
 *   await put("b", new Int8Array([-127]));
 *   await put("a", new Float32Array([1, -0.5]));
 * });
 * using file = await openSafetensors(path);
 * console.log(file.tensors.get("b"));
 * await Deno.remove(path);
 * ```
 */
export async function streamSafetensors(
  path: string,
  tensors: ReadonlyMap<string, TensorDeclaration>,
  metadata: Readonly<Record<string, string>>,
  write: (put: (name: string, data: Float32Array | Int8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const { header, begins } = layOut(tensors, metadata), missing = new Set(tensors.keys());
  await writeFile(path, async (file) => {
    await writeAll(file, new BigUint64Array([BigInt(header.length)]));
    await writeAll(file, header);
    await write(async (name, data) => {
      const tensor = tensors.get(name);
      if (!tensor || !missing.delete(name)) {
        throw new RangeError(
          `Cannot write the tensor ${quote(name)}: ${tensor ? "it came before" : "it was not declared"}.`,
        );
      }
      checkData(name, tensor, data);
      await file.seek(8 + header.length + begins.get(name)!, Deno.SeekMode.Start);
      for (let done = 0; done < data.length; done += CHUNK) {
        await writeAll(file, convert(tensor.dtype, data.subarray(done, done + CHUNK)));
      }
    });
    if (missing.size > 0) {
      throw new RangeError(`Cannot write ${path} without the tensor ${quote([...missing][0])}: it was declared.`);
    }
  });
}

/** The header, padded so that the data begins at a multiple of 8, and where in the data each tensor begins. */
function layOut(
  tensors: ReadonlyMap<string, TensorDeclaration>,
  metadata: Readonly<Record<string, string>>,
): { header: Uint8Array; begins: Map<string, number> } {
  // The widest types first, so that every tensor begins at a multiple of its element's size.
  const ordered = [...tensors].sort(([nameA, a], [nameB, b]) =>
    DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype] || (nameA < nameB ? -1 : 1)
  );
  const entries: [string, unknown][] = [], begins = new Map<string, number>();
  if (Object.keys(metadata).length > 0) entries.push(["__metadata__", metadata]);
  let end = 0;
  for (const [name, { dtype, shape }] of ordered) {
    if (name === "__metadata__") throw new RangeError(`Cannot write the tensor "${name}": that name is for notes.`);
    begins.set(name, end);
    const begin = end;
    end += elements(shape) * DTYPE_BYTES[dtype];
    entries.push([name, { dtype, shape, data_offsets: [begin, end] }]);
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const header = new Uint8Array(Math.ceil(json.length / 8) * 8).fill(0x20);
  header.set(json);
  return { header, begins };
}

function checkData(name: string, { dtype, shape }: TensorDeclaration, data: Float32Array | Int8Array): void {
  const wanted = dtype === "I8" ? Int8Array : Float32Array;
  if (!(data instanceof wanted)) {
    throw new RangeError(`Cannot write the tensor ${quote(name)}: ${dtype} takes the values of a ${wanted.name}.`);
  }
  if (data.length === elements(shape)) return;
  throw new RangeError(
    `Cannot write the tensor ${quote(name)}: its shape [${shape}] wants ${
      elements(shape)
    } values and it has ${data.length}.`,
  );
}

function elements(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

function convert(dtype: TensorDeclaration["dtype"], data: Float32Array | Int8Array): ArrayBufferView {
  if (data instanceof Int8Array || dtype === "F32") return data;
  return dtype === "F16" ? float32ToFloat16(data) : float32ToBfloat16(data);
}
