/**
 * Lanes or threads: how a batch is best spread over the processor.
 *
 * The cores can share each step, by the groups of heads and hidden units that a model is divided into, or each take some of
 * the rows through a step of their own. Groups meet twice a block; lanes never do, but each of them reads all the weights.
 * Which wins depends on the machine, the model, its dtype and the batch size, so it is measured, once, and kept.
 */

import { createHash } from "node:crypto";
import { cpus } from "node:os";
import { join } from "node:path";
import { padBatch } from "../tokenizer/batch.ts";
import { writeTextFile } from "../util/files.ts";
import { checkParallelism } from "./limits.ts";
import type { Parallelism } from "../backend/types.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { median, timeGeneration } from "../bench/measure.ts";
import { cacheFolder } from "../tensorflow/install/locate.ts";

/** What was best at some batch sizes. */
export type Plan = readonly (Parallelism & { batchSize: number })[];

/**
 * What to use for a batch size: what was asked for, if it was; else what the plan has for the size nearest to it, by ratio;
 * else a guess. Throws a RangeError if what was asked for makes no sense here.
 */
export function parallelismFor(model: GPT2, batchSize: number, asked?: Parallelism): Parallelism {
  if (asked) {
    checkParallelism(asked, batchSize);
    return asked;
  }
  const { threads, groups, capture } = model.backend;
  if (!capture) return { lanes: 1, threads };
  const distance = (size: number) => Math.abs(Math.log(size / batchSize));
  const [nearest] = model.plan.toSorted((a, b) => distance(a.batchSize) - distance(b.batchSize));
  if (nearest) return { lanes: Math.min(nearest.lanes, batchSize), threads: nearest.threads };
  const lanes = Math.max(1, Math.min(batchSize, Math.floor(threads / groups))); // the groups share a lane's threads
  return { lanes, threads: Math.floor(threads / lanes) };
}

/** The ways to spread `batchSize` rows over `threads` threads: 1 lane of all, 2 of half, … and 1 lane of 1 thread. */
export function waysToSpread(threads: number, batchSize: number): Parallelism[] {
  const lanes = [1, 2, 4, 8, 16, 32, 64].filter((count) => count < threads && threads % count === 0);
  const ways = [...lanes, threads].map((count) => ({ lanes: count, threads: threads / count }));
  return [...ways, { lanes: 1, threads: 1 }].filter((way, i, all) =>
    way.lanes <= batchSize && all.findIndex((other) => other.lanes === way.lanes && other.threads === way.threads) === i
  );
}

/** Measures every way at a few batch sizes and returns the best of each; about ten seconds for GPT-2 124M on two cores. */
export async function calibrate(
  model: GPT2,
  { batchSizes = [1, 4, 16, 64], onProgress }: {
    batchSizes?: readonly number[];
    onProgress?: (done: number, total: number) => void;
  } = {},
): Promise<Plan> {
  const plan: (Parallelism & { batchSize: number })[] = [];
  const rounds = 3, newTokens = 4;
  for (const [done, batchSize] of batchSizes.entries()) {
    onProgress?.(done, batchSizes.length);
    const prompt = Array.from({ length: 7 }, (_, i) => i % model.config.vocab_size);
    const inputs = padBatch(Array(batchSize).fill(prompt), { padTokenId: 0 });
    const ways = waysToSpread(model.backend.threads, batchSize);
    const seconds = ways.map((): number[] => []);
    for (let round = 0; round < rounds; round++) {
      for (const [i, parallelism] of ways.entries()) {
        const timing = await timeGeneration(model, inputs, newTokens, parallelism);
        if (round > 0) seconds[i].push(timing.prefillSeconds + 3 * timing.decodeSeconds); // as for ten new tokens
      }
    }
    const medians = seconds.map(median), best = medians.indexOf(Math.min(...medians));
    plan.push({ batchSize, ...ways[best] });
  }
  onProgress?.(batchSizes.length, batchSizes.length);
  return plan;
}

/** The plan that was kept for this model on this machine, or null. */
export async function storedPlan(model: GPT2): Promise<Plan | null> {
  try {
    return JSON.parse(await Deno.readTextFile(planFile(model))).plan;
  } catch {
    return null; // none yet, or not readable: it can be measured again
  }
}

/** Keeps a plan for this model on this machine. */
export async function storePlan(model: GPT2, plan: Plan): Promise<void> {
  await writeTextFile(planFile(model), JSON.stringify({ of: identity(model), plan }, null, 1));
}

function planFile(model: GPT2): string {
  const name = createHash("sha256").update(JSON.stringify(identity(model))).digest("hex").slice(0, 16);
  return join(cacheFolder(), "plans", `${name}.json`);
}

/** What the best way depends on. */
function identity({ config, dtype, backend }: GPT2) {
  const { n_layer, n_embd, n_head, n_inner, vocab_size } = config;
  return { cpu: cpus()[0]?.model, backend: backend.description, dtype, n_layer, n_embd, n_head, n_inner, vocab_size };
}
