/**
 * Decode steps of GPT-2s of many sizes, from 124 million to 6.6 billion parameters, over batch sizes: from what waits for kernels to
 * start, to what waits for memory, to what waits for arithmetic.
 *
 *     deno run -A sizes.ts RESULTS.json [--backend NAME] [--dtype TYPE] [--models gpt2,gpt2-xl,3b,7b] [--batch-sizes 1,32,256]
 *
 * Weights are random, time does not depend on them. Each row has 16 tokens in the cache; the median of 5 runs of 16 steps, after
 * half a second of others, in which the GPU's clocks rise. Written after each model: what was measured stays if the next one fails.
 */

import { parseArgs } from "node:util";
import { useBackend } from "../../../backend/select.ts";
import type { BackendName } from "../../../backend/types.ts";
import type { Dtype } from "../../../backend/ops.ts";
import { parameterCount } from "../../../gpt2/config.ts";
import { randomGPT2 } from "../../../gpt2/load.ts";
import type { GPT2 } from "../../../gpt2/model.ts";
import { KvCache } from "../../../engine/kv_cache.ts";
import { Runner } from "../../../engine/runner.ts";
import { writeTextFile } from "../../../util/files.ts";
import { median } from "../../../util/median.ts";
import { decodeStepCost, measureRoofs } from "../../roofline.ts";
import { CONTEXT, sizedConfig, type SizesResult, STEPS } from "./sizes_config.ts";

const WARMUP_SECONDS = 0.5, RUNS = 5;

const { values: flags, positionals: [path] } = parseArgs({
  allowPositionals: true,
  options: {
    backend: { type: "string", default: "tensorflow" },
    dtype: { type: "string", default: "bfloat16" },
    models: { type: "string", default: "gpt2,gpt2-medium,gpt2-large,gpt2-xl,3b,7b" },
    "batch-sizes": { type: "string", default: "1,8,64,512" },
  },
});
const backend = await useBackend(flags.backend as BackendName), dtype = flags.dtype as Dtype;
const roofs = await measureRoofs(backend, { dtype });
const points: SizesResult["points"] = [];
for (const name of flags.models.split(",")) {
  using model = await randomGPT2(sizedConfig(name), { backend, dtype, quick: true });
  for (const batchSize of flags["batch-sizes"].split(",").map(Number)) {
    const start = performance.now(), stepSeconds = await timeSteps(model, batchSize);
    const { bytes, flops } = decodeStepCost(model.config, dtype, batchSize, CONTEXT + STEPS / 2);
    const point = {
      model: name,
      parameters: parameterCount(model.config),
      batchSize,
      stepSeconds,
      throughput: batchSize / stepSeconds,
      mbu: bytes / stepSeconds / roofs.bandwidth,
      mfu: flops / stepSeconds / roofs.flops,
    };
    points.push(point);
    console.log(
      `${name} batch ${batchSize}: ${(1000 * stepSeconds).toFixed(2)} ms, ${point.throughput.toFixed(0)} tok/s, ` +
        `MBU ${(100 * point.mbu).toFixed(0)}%, MFU ${(100 * point.mfu).toFixed(0)}%, all of it ${
          ((performance.now() - start) / 1000).toFixed(0)
        } s`,
    );
  }
  const about = { created: new Date().toISOString(), backend: backend.description, deno: Deno.version.deno, dtype };
  const result: SizesResult = { ...about, command: ["sizes.ts", ...Deno.args].join(" "), roofs, points };
  await writeTextFile(path, JSON.stringify(result, null, 2) + "\n");
}

/** The median seconds of a step. */
async function timeSteps(model: GPT2, batchSize: number): Promise<number> {
  using cache = new KvCache(model);
  const rows = cache.admit({ slots: Array(batchSize).fill(CONTEXT + STEPS), length: CONTEXT });
  const feeds = rows.map((row) => ({ row, tokens: [0] })), runner = Runner.of(model), seconds: number[] = [];
  const run = async () => {
    for (const row of rows) cache.rewind(row, CONTEXT);
    const start = performance.now();
    if (model.backend.runsAhead) await runner.greedySteps(cache, feeds, STEPS);
    else for (let i = 0; i < STEPS; i++) await runner.step(cache, feeds);
    return (performance.now() - start) / 1000 / STEPS;
  };
  await run(); // compiles
  for (const start = performance.now(); performance.now() - start < 1000 * WARMUP_SECONDS;) await run();
  while (seconds.length < RUNS) seconds.push(await run());
  return median(seconds);
}
