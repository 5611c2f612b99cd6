/** Measures how batches are best spread over the processor, and whether what was best once still is. */

import type { Parallelism } from "../backend/types.ts";
import { guessedParallelism, waysToSpread } from "../engine/parallelism.ts";
import { type Plan, Runner } from "../engine/runner.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { type Batch, padBatch } from "../tokenizer/batch.ts";
import { median } from "../util/median.ts";
import { timeGeneration } from "./measure.ts";
import { watchProcessor } from "./machine_state.ts";

/** A plan, and how far it can be trusted. */
export interface Calibration {
  /** The best way at each batch size that was tried. */
  plan: Plan;
  /** What disturbed the measurement, in a sentence; null if nothing did. */
  doubt: string | null;
}

/** Rounds in which all ways take turns. One more, before them, does not count. */
const ROUNDS = 3;

/**
 * Measures every way at a few batch sizes and returns the best of each; about ten seconds for GPT-2 124M on two cores. What is
 * likely to be best stays unless another way was better in every round, so that a busy moment does not choose.
 */
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
    const likely = guessedParallelism(model.backend, batchSize);
    plan.push({ batchSize, ...(await betterWay(model, batchSize, likely))?.way ?? likely });
  }
  onProgress?.(batchSizes.length, batchSizes.length);
  return { plan, doubt: busy() };
}

/** A way that is worth measuring everything again takes less than this share of the time. */
const CLEARLY = 0.85;

/**
 * Whether the model's plan still fits: times what it chose for its smallest batch against every other way, which takes
 * about a second. Returns a sentence that says what is clearly better, or null; also when the machine is too busy to tell.
 */
export async function findBetterWay(model: GPT2): Promise<string | null> {
  const [chosen] = Runner.of(model).plan.toSorted((a, b) => a.batchSize - b.batchSize), { batchSize } = chosen;
  const busy = watchProcessor(), better = await betterWay(model, batchSize, chosen);
  if (!better || better.share >= CLEARLY || busy()) return null;
  const describe = ({ lanes, threads }: Parallelism) => `${lanes}×${threads}`, share = Math.round(100 * better.share);
  return `At batch ${batchSize}, ${describe(better.way)} lanes × threads take ${share}% of the time of the ` +
    `${describe(chosen)} that are planned.`;
}

/** Of the ways that are quicker than this one in every round the quickest, and which share of its time it takes. */
async function betterWay(
  model: GPT2,
  batchSize: number,
  { lanes, threads }: Parallelism,
): Promise<{ way: Parallelism; share: number } | undefined> {
  const others = waysToSpread(model.backend.threads, batchSize)
    .filter((way) => way.lanes !== lanes || way.threads !== threads);
  const [own, ...rivals] = await timeInTurns(model, batchSize, [{ lanes, threads }, ...others]);
  return others.map((way, i) => ({ way, share: median(rivals[i]) / median(own) }))
    .filter((_, i) => rivals[i].every((seconds, round) => seconds < own[round]))
    .toSorted((a, b) => a.share - b.share)[0];
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
