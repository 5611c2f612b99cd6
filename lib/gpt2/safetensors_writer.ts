/** Writes safetensors files. */

import { writeAll, writeFile } from "../files.ts";
import { float32ToBfloat16, float32ToFloat16 } from "../half.ts";
import { type Dtype, DTYPE_BYTES, quote } from "./safetensors_header.ts";

/** A tensor to write: its values in row-major order, and the type they are stored as. */
export type TensorData =
  | { dtype: "F32" | "F16" | "BF16"; shape: readonly number[]; data: Float32Array }
  | { dtype: "I8"; shape: readonly number[]; data: Int8Array };

/** Numbers converted at once. */
const CHUNK = 2 ** 20;

/**
 * Writes tensors and notes to `path`, whole or not at all: what stood there before stays until all is on disk. Float32
 * values are rounded to the nearest of the type asked for; in F16, what lies beyond ±65,504 becomes infinite.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openSafetensors, writeSafetensors } from "./safetensors.ts";
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
  // The widest types first, so that every tensor begins at a multiple of its element's size.
  const ordered = [...tensors].sort(([nameA, a], [nameB, b]) =>
    DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype] || (nameA < nameB ? -1 : 1)
  );
  const header = encodeHeader(ordered, metadata);
  await writeFile(path, async (file) => {
    await writeAll(file, new BigUint64Array([BigInt(header.length)]));
    await writeAll(file, header);
    for (const [, tensor] of ordered) {
      for (let done = 0; done < tensor.data.length; done += CHUNK) {
        await writeAll(file, convert(tensor, done, done + CHUNK));
      }
    }
  });
}

function encodeHeader(tensors: [string, TensorData][], metadata: Readonly<Record<string, string>>): Uint8Array {
  const entries: [string, unknown][] = [];
  if (Object.keys(metadata).length > 0) entries.push(["__metadata__", metadata]);
  let end = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    const count = shape.reduce((product, length) => product * length, 1);
    if (name === "__metadata__" || count !== data.length) {
      throw new RangeError(
        `Cannot write the tensor ${quote(name)}: its shape [${shape}] wants ${count} values and it has ${data.length}.`,
      );
    }
    const begin = end;
    end += count * DTYPE_BYTES[dtype as Dtype];
    entries.push([name, { dtype, shape, data_offsets: [begin, end] }]);
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const padded = new Uint8Array(Math.ceil(json.length / 8) * 8).fill(0x20); // so that the data begins at a multiple of 8
  padded.set(json);
  return padded;
}

function convert({ dtype, data }: TensorData, begin: number, end: number): ArrayBufferView {
  if (dtype === "F16") return float32ToFloat16(data.subarray(begin, end));
  if (dtype === "BF16") return float32ToBfloat16(data.subarray(begin, end));
  return data.subarray(begin, end);
}
