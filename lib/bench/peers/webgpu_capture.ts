/**
 * The WebGPU backend's captured steps beside tfjs's operations one by one, in turns, on whatever GPU there is: decode times,
 * and what a decode step asks of the GPU, counted at WebGPU's own interface.
 *
 *     deno run -A lib/bench/peers/webgpu_capture.ts [--model small] [--batch-sizes 1,16] [--rounds 5] [--dtype float32]
 *
 * On a machine without a GPU it runs on Mesa's software Vulkan (Debian: mesa-vulkan-drivers).
 */

import { parseArgs } from "node:util";
import { plainCachePolicy, plainOps } from "../../backend/plain.ts";
import { useBackend } from "../../backend/select.ts";
import { padBatch } from "../../tokenizer/batch.ts";
import { table } from "../../util/table.ts";
import { loadOrMakeModel } from "../../cli/model_flags.ts";
import { FOX } from "../fox.ts";
import { decodeStep, prefill } from "../../engine/generate.ts";
import { randomGPT2 } from "../../gpt2/load.ts";
import type { GPT2 } from "../../gpt2/model.ts";
import { median } from "../../util/median.ts";
import { countGpuWork, type GpuWork } from "./gpu_work.ts";

const { values: flags } = parseArgs({
  options: {
    model: { type: "string", default: "small" },
    dtype: { type: "string", default: "float32" },
    "batch-sizes": { type: "string", default: "1,16" },
    rounds: { type: "string", default: "5" },
    steps: { type: "string", default: "9" },
  },
});
const rounds = Number(flags.rounds), steps = Number(flags.steps);

const backend = await useBackend("webgpu"), { dtype } = flags;
using captured = (await loadOrMakeModel(flags.model, { backend: "webgpu", dtype })).model;
using naive = await opByOp(captured);
console.log(`${flags.model}, captured steps in ${dtype}, on ${backend.description}`);
console.log(`medians of ${rounds} rounds in turns; prompts of ${FOX.length} tokens, ${steps} decode steps\n`);

const rows = [[
  "batch",
  "path",
  "ms a step",
  "tok/s",
  "times naive",
  "dispatches",
  "submissions",
  "bind groups",
  "bytes read",
]];
for (const batchSize of flags["batch-sizes"].split(",").map(Number)) {
  const paths = [{ name: "naive", model: naive }, { name: "captured", model: captured }].map((path) => ({
    ...path,
    seconds: [] as number[],
    work: undefined as GpuWork | undefined,
  }));
  for (let round = 0; round <= rounds; round++) {
    for (const path of paths) {
      const { seconds, work } = await decode(path.model, batchSize);
      if (round > 0) path.seconds.push(seconds); // the first compiles kernels
      path.work = work;
    }
  }
  const slow = median(paths[0].seconds);
  for (const { name, seconds, work } of paths) {
    const time = median(seconds), { dispatches, submissions, bindGroups, bytesRead } = work!;
    rows.push([
      ...[
        `${batchSize}`,
        name,
        (1000 * time).toFixed(2),
        (batchSize / time).toFixed(1),
        `${(slow / time).toFixed(1)}x`,
      ],
      ...[dispatches, submissions, bindGroups, bytesRead].map(String),
    ]);
  }
}
console.log(table(rows));

/** Seconds of a decode step, the mean over a generation, and what the last one asked of the GPU. */
async function decode(model: GPT2, batchSize: number): Promise<{ seconds: number; work: GpuWork }> {
  const inputs = padBatch(Array(batchSize).fill(FOX.map((id) => id % model.config.vocab_size)), { padTokenId: 0 });
  using generation = await prefill(model, inputs, { maxTokens: steps + 2, ignoreEos: true });
  const start = performance.now();
  for (let i = 0; i < steps; i++) await decodeStep(model, generation);
  const seconds = (performance.now() - start) / 1000 / steps;
  return { seconds, work: await countGpuWork(() => decodeStep(model, generation)) };
}

/** A model of that size in float32 that runs tfjs's operations one by one. */
async function opByOp({ config, backend }: GPT2): Promise<GPT2> {
  const changes = { capture: undefined, ops: plainOps, cachePolicy: plainCachePolicy };
  return await randomGPT2(config, { backend: { ...backend, ...changes } });
}
