/** Measures which way of spreading a batch over the processor is best. */

import { padBatch } from "../tokenizer/batch.ts";
import type { Parallelism } from "../backend/types.ts";
import type { Plan } from "../engine/parallelism.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { median } from "../util/median.ts";
import { timeGeneration } from "./measure.ts";

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
