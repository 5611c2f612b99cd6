/**
 * Safetensors, the files that models' weights come in: a header, then the bytes of every tensor. Files are streamed:
 * reading a tensor costs the array it goes to and one small chunk.
 */

import { join } from "node:path";
import { quote } from "../util/quote.ts";
import { SafetensorsFile, type Weights } from "./file.ts";
import { SafetensorsError } from "./header.ts";
import { parseJson } from "../util/json.ts";

export { type ByteSource, openSafetensors, SafetensorsFile, type Weights } from "./file.ts";
export { SafetensorsError, type StoredDtype, type TensorInfo } from "./header.ts";
export { streamSafetensors, type TensorData, type TensorDeclaration, writeSafetensors } from "./writer.ts";

/**
 * Opens the weights in a model's folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openWeights } from "./reader.ts";
 *
 * using weights = await openWeights("models/small");
 * assert.ok(weights.tensors.has("transformer.wte.weight"));
 * ```
 */
export async function openWeights(folder: string): Promise<Weights> {
  const whole = join(folder, "model.safetensors");
  const index = join(folder, "model.safetensors.index.json");
  if (await sizeOf(whole) !== undefined) return await SafetensorsFile.open(whole);
  if (await sizeOf(index) !== undefined) return await openShards(folder, index);
  throw new SafetensorsError(
    whole,
    "there is no such file, nor a model.safetensors.index.json. Download the model, or convert its weights to safetensors.",
  );
}

const MAX_INDEX_BYTES = 4_000_000;

/** Opens the shards that an index lists, to be read as one. */
async function openShards(folder: string, index: string): Promise<Weights> {
  const shardOf = await readShardIndex(index);
  using opened = new DisposableStack();
  const files = new Map<string, SafetensorsFile>();
  for (const shard of new Set(shardOf.values())) {
    files.set(shard, opened.use(await SafetensorsFile.open(join(folder, shard))));
  }
  const tensors = new Map([...shardOf].map(([name, shard]) => {
    const info = files.get(shard)!.tensors.get(name);
    if (!info) throw new SafetensorsError(index, `${quote(name)} is not in ${shard}. Download the model again.`);
    return [name, info];
  }));
  const fileOf = (name: string) => {
    const shard = shardOf.get(name);
    if (shard === undefined) throw new SafetensorsError(index, `there is no tensor ${quote(name)}.`);
    return files.get(shard)!;
  };
  const owned = opened.move();
  return {
    tensors,
    metadata: new Map([...files.values()].flatMap((file) => [...file.metadata])),
    readFloat32Into: async (name, destination) => await fileOf(name).readFloat32Into(name, destination),
    readFloat32: async (name) => await fileOf(name).readFloat32(name),
    readInt8: async (name) => await fileOf(name).readInt8(name),
    [Symbol.dispose]: () => owned.dispose(),
  };
}

/**
 * The shard of each tensor, from the `weight_map` of the index at `path`. A shard is a file of the same folder, never a
 * path. Throws a SafetensorsError.
 */
export async function readShardIndex(path: string): Promise<Map<string, string>> {
  const size = await sizeOf(path) ?? 0;
  if (size > MAX_INDEX_BYTES) throw new SafetensorsError(path, `${size} bytes are too many for an index.`);
  let map: unknown;
  try {
    map = parseJson(await Deno.readTextFile(path))?.weight_map;
  } catch (cause) {
    throw new SafetensorsError(path, `it is not JSON (${(cause as Error).message}). Download it again.`, { cause });
  }
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new SafetensorsError(path, "it has no weight_map. Download the model again.");
  }
  return new Map(
    Object.entries(map).map(([name, shard]) => {
      if (typeof shard === "string" && /^[\w-][\w.-]*\.safetensors$/.test(shard)) return [name, shard];
      const claim = quote(JSON.stringify(shard));
      throw new SafetensorsError(
        path,
        `it puts ${quote(name)} in ${claim}, which is not the name of a safetensors file.`,
      );
    }),
  );
}

/** The size of a file in bytes, or undefined if there is none. */
async function sizeOf(path: string): Promise<number | undefined> {
  try {
    const { isFile, size } = await Deno.stat(path);
    return isFile ? size : undefined;
  } catch {
    return undefined;
  }
}
