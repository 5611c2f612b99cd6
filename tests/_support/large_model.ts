/**
 * A model too large for a test, with random weights: what loading it and generating with it take at most, against its
 * weights in the type that it computes with and 1.5 GB more. Fails if that is not enough; the limit is meant for the
 * largest sizes and a small batch.
 *
 *     deno run -A tests/_support/large_model.ts [--size gpt2-xl] [--shards 1,3] [--dtypes float32,bfloat16,int8] [--int8-file]
 *       [--batch-size 2] [--prompt-tokens 3] [--max-tokens 3]
 *
 * Writes files of twice as many bytes as the model has weights into the temporary folder, and removes them. For gpt2-xl:
 * 3 GB of disk, 8 GB of memory, and about five minutes. `--int8-file` also loads a file whose weights are int8 already.
 * Linux only: the other systems do not say how much memory a process had at most.
 */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { table } from "../../lib/util/table.ts";
import { gpt2Config, type GPT2Size, parameterCount } from "../../lib/gpt2/config.ts";
import type { Dtype } from "../../lib/backend/ops.ts";
import { quantizeModel } from "../../lib/gpt2/quantize.ts";
import { loadInItsOwnProcess } from "./load_memory.ts";
import { writeRandomCheckpoint } from "./random_checkpoint.ts";

const { values: flags } = parseArgs({
  options: {
    size: { type: "string", default: "gpt2-xl" },
    shards: { type: "string", default: "1,3" },
    dtypes: { type: "string", default: "float32,bfloat16,int8" },
    "batch-size": { type: "string", default: "2" },
    "prompt-tokens": { type: "string", default: "3" },
    "max-tokens": { type: "string", default: "3" },
    "int8-file": { type: "boolean", default: false },
  },
});
const BYTES: Record<Dtype, number> = { float32: 4, bfloat16: 2, int8: 1 }, ALLOWED = 1.5e9;
const [batchSize, promptTokens, maxTokens] = [flags["batch-size"], flags["prompt-tokens"], flags["max-tokens"]].map(
  Number,
);
const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(2);

const config = gpt2Config(flags.size as GPT2Size), parameters = parameterCount(config);
const rows = [["file", "as", "weights GB", "at most, loading", "generating", "allowed", "load s", "generate s"]];
let failed = 0;

async function check(file: string, folder: string, dtype: Dtype): Promise<void> {
  const weights = BYTES[dtype] * parameters,
    memory = await loadInItsOwnProcess(folder, dtype, { batchSize, promptTokens, maxTokens });
  if (memory.generated > weights + ALLOWED) failed++;
  const bytes = [weights, memory.loaded, memory.generated, weights + ALLOWED].map(gigabytes);
  rows.push([file, dtype, ...bytes, memory.loadSeconds.toFixed(1), memory.generateSeconds.toFixed(1)]);
  console.error(rows.at(-1)!.join("  "));
}

const parent = await Deno.makeTempDir({ prefix: "omnibus-large-" });
try {
  for (const shards of flags.shards.split(",").map(Number)) {
    const folder = await Deno.makeTempDir({ dir: parent });
    await writeRandomCheckpoint(folder, config, { shards });
    for (const dtype of flags.dtypes.split(",") as Dtype[]) await check(`float16, ${shards}`, folder, dtype);
    if (flags["int8-file"]) {
      const quantized = join(parent, `int8-${shards}`);
      await quantizeModel(folder, quantized, "int8");
      await check("int8, 1", quantized, "int8");
      await Deno.remove(quantized, { recursive: true });
    }
    await Deno.remove(folder, { recursive: true });
  }
} finally {
  await Deno.remove(parent, { recursive: true });
}
console.log(`${flags.size} with random weights: ${parameters.toLocaleString("en")} parameters, memory in GB\n`);
console.log(table(rows));
if (failed > 0) {
  console.error(`${failed} took more memory than they may.`);
  Deno.exit(1);
}
