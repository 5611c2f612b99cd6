/** Ranges of activations on disk: measured once for the weights of a model. What cannot be used is not there. */

import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { type ActivationRange, type ActivationRanges, isActivationRange } from "../backend/int8.ts";
import { listedWeights } from "../gpt2/folder.ts";
import { cacheFolder } from "../util/cache_folder.ts";
import { writeTextFile } from "../util/files.ts";

/** Keeps the ranges for what `digest` stands for. Throws what the system says if the cache cannot be written. */
export async function storeRanges(digest: string, ranges: ActivationRanges): Promise<void> {
  await writeTextFile(rangesFile(digest), JSON.stringify(Object.fromEntries(ranges), null, 1) + "\n");
}

/** The ranges that were kept; null for anything that is none. */
export async function storedRanges(digest: string): Promise<ActivationRanges | null> {
  try {
    const ranges = Object.entries<ActivationRange>(JSON.parse(await Deno.readTextFile(rangesFile(digest))));
    return ranges.every(([, range]) => isActivationRange(range)) ? new Map(ranges) : null;
  } catch {
    return null;
  }
}

/** What is read of each file of weights: so many pieces of so many bytes, from all over it. */
const PIECES = 1024, PIECE_BYTES = 4096;

/**
 * What a model's weights are known by: a digest of their files' sizes, of their beginnings, where the names and shapes are, and
 * of samples from all over them, and of the text in the folder that ranges are measured on. To read all would take as
 * long as to load the model.
 */
export async function weightsDigest(folder: string, text: string | null): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify({ version: 2, text }));
  const single = join(folder, "model.safetensors"), index = `${single}.index.json`;
  const isSharded = !await Deno.stat(single).catch(() => null);
  const files = isSharded ? (await listedWeights(index)).map((name) => join(dirname(index), basename(name))) : [single];
  for (const path of files) {
    using file = await Deno.open(path);
    const { size } = await file.stat(), piece = new Uint8Array(PIECE_BYTES);
    hash.update(`${size};`);
    for (let i = 0; i < PIECES; i++) {
      await file.seek(Math.floor(size / PIECES) * i, Deno.SeekMode.Start);
      const read = await file.read(piece);
      if (read) hash.update(piece.subarray(0, read));
    }
  }
  return hash.digest("hex");
}

/** The same for weights that a seed makes. */
export function seedDigest(seed: number, config: object): string {
  return createHash("sha256").update(JSON.stringify({ version: 2, seed, config })).digest("hex");
}

function rangesFile(digest: string): string {
  return join(cacheFolder(), "activations", `${digest.slice(0, 16)}.json`);
}
