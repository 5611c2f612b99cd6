/** Measures how batches are best spread over the processor, and whether what was best once still is. */

import type { Parallelism } from "../backend/types.ts";
import { waysToSpread } from "../engine/parallelism.ts";
import { type Plan, Runner } from "../engine/runner.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { type Batch, padBatch } from "../tokenizer/batch.ts";
import { median } from "../util/median.ts";
import { timeGeneration } from "./measure.ts";
import { watchProcessor } from "./processor.ts";

/** A plan, and how far it can be trusted. */
export interface Calibration {
  /** The best way at each batch size that was tried. */
  plan: Plan;
  /** What disturbed the measurement, in a sentence; null if nothing did. */
  doubt: string | null;
}

/** Rounds in which all ways take turns. One more, before them, does not count. */
const ROUNDS = 3;

/** Another way is clearly better if it was in every round, and took less than this share of the time. */
const CLEARLY = 0.85;

/** Measures every way at a few batch sizes and returns the best of each; about ten seconds for GPT-2 124M on two cores. */
export async function calibrate(
  model: GPT2,
  { batchSizes = [1, 4, 16, 64], onProgress }: {
    batchSizes?: readonly number[];
    onProgress?: (done: number, total: number) => void;
  } = {},
): Promise<Calibration> {
  const plan: (Parallelism & { batchSize: number })[] = [], busy = watchProcessor();
  for (const [done, batchSize] of batchSizes.entries()) {
    onProgress?.(done, batchSizes.length);
    const ways = waysToSpread(model.backend.threads, batchSize);
    const medians = (await timeInTurns(model, batchSize, ways)).map(median);
    plan.push({ batchSize, ...ways[medians.indexOf(Math.min(...medians))] });
  }
  onProgress?.(batchSizes.length, batchSizes.length);
  return { plan, doubt: busy() };
}

/**
 * Whether the model's plan still fits: times what it chose for its smallest batch against every other way, which takes
 * about a second. Returns a sentence that says what is clearly better, or null; also when the machine is too busy to tell.
 */
export async function findBetterWay(model: GPT2): Promise<string | null> {
  const [chosen] = Runner.of(model).plan.toSorted((a, b) => a.batchSize - b.batchSize), { batchSize } = chosen;
  const isChosen = (way: Parallelism) => way.lanes === chosen.lanes && way.threads === chosen.threads;
  const others = waysToSpread(model.backend.threads, batchSize).filter((way) => !isChosen(way));
  const busy = watchProcessor();
  const [own, ...rivals] = await timeInTurns(model, batchSize, [chosen, ...others]);
  if (busy()) return null;
  const shares = rivals.map((rival) => rival.every((seconds, i) => seconds < own[i]) ? median(rival) / median(own) : 1);
  const least = Math.min(...shares), better = others[shares.indexOf(least)];
  if (!(least < CLEARLY)) return null;
  const describe = ({ lanes, threads }: Parallelism) => `${lanes}×${threads}`;
  return `At batch ${batchSize}, ${describe(better)} lanes × threads take ${Math.round(100 * least)}% of the time of ` +
    `the ${describe(chosen)} that are planned.`;
}

/** The seconds of each way in each round, as for ten new tokens of every row. */
async function timeInTurns(model: GPT2, batchSize: number, ways: readonly Parallelism[]): Promise<number[][]> {
  const seconds = ways.map((): number[] => []), inputs = sevenTokens(model, batchSize);
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [i, { lanes, threads }] of ways.entries()) {
      const timing = await timeGeneration(model, inputs, 4, { lanes, threads });
      if (round > 0) seconds[i].push(timing.prefillSeconds + 3 * timing.decodeSeconds);
    }
  }
  return seconds;
}

function sevenTokens({ config }: GPT2, batchSize: number): Batch {
  const prompt = Array.from({ length: 7 }, (_, i) => i % config.vocab_size);
  return padBatch(Array(batchSize).fill(prompt), { padTokenId: 0 });
}
