/** Models of any size on disk, written a tensor at a time, so that they may be larger than the memory. */

import { join } from "node:path";
import { writeTextFile } from "../../lib/util/files.ts";
import type { GPT2Config } from "../../lib/gpt2/config.ts";
import { streamSafetensors } from "../../lib/safetensors/reader.ts";
import { randomWeights, weightShapes } from "../../lib/gpt2/weights.ts";

/** How a checkpoint is written. */
export interface CheckpointOptions {
  seed?: number;
  /** Into so many files, with an index. Default: into one, without. */
  shards?: number;
}

/** Writes `config.json` and random float16 weights, layer norms at 1 and 0, into `folder`; gives the files' bytes. */
export async function writeRandomCheckpoint(
  folder: string,
  config: GPT2Config,
  { seed = 1, shards = 1 }: CheckpointOptions = {},
): Promise<number> {
  await writeTextFile(join(folder, "config.json"), JSON.stringify({ model_type: "gpt2", ...config }));
  const shapes = [...weightShapes(config)], shardOf: Record<string, string> = {};
  using weights = randomWeights(seed);
  let bytes = 0;
  for (let shard = 0; shard < shards; shard++) {
    const number = (n: number) => String(n).padStart(5, "0");
    const name = shards === 1 ? "model" : `model-${number(shard + 1)}-of-${number(shards)}`;
    const path = join(folder, `${name}.safetensors`);
    const here = shapes.slice(
      Math.floor(shapes.length * shard / shards),
      Math.floor(shapes.length * (shard + 1) / shards),
    );
    const declared = new Map(here.map(([name, shape]) => [name, { dtype: "F16", shape }] as const));
    await streamSafetensors(path, declared, { format: "pt" }, async (put) => {
      for (const [name, shape] of here) {
        const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
        await weights.fill(name, values);
        await put(name, values);
      }
    });
    for (const [tensor] of here) shardOf[tensor] = `${name}.safetensors`;
    bytes += (await Deno.stat(path)).size;
  }
  if (shards > 1) {
    const index = { metadata: { total_size: bytes }, weight_map: shardOf };
    await writeTextFile(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
  }
  return bytes;
}
