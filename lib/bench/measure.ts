/**
 * The batching experiment: the same prompts in batches of 1, 2, 4, … 128, timed end to end, prefill and decode apart.
 *
 * Throughput = batch size × new tokens / total time, latency = total time / new tokens, as in the source. What a reader of
 * text feels is TTFT (time to first token: prefill) and TPOT (time per output token: one decode step); in a static batch
 * they are the same for every row.
 */

import { cpus } from "node:os";
import { type Batch, padBatch, paddingShare } from "../tokenizer/batch.ts";
import { FOX } from "./fox.ts";
import { decodeSteps, prefill } from "../engine/generate.ts";
import { parameterCount } from "../gpt2/config.ts";
import { KvCache } from "../engine/kv_cache.ts";
import type { Parallelism } from "../backend/types.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { checkParallelism } from "../engine/limits.ts";
import { checkMemory } from "../engine/memory.ts";
import type { Dtype } from "../backend/ops.ts";
import { parallelismFor } from "../engine/parallelism.ts";
import { median } from "../util/median.ts";
import { seededRandom } from "../util/random.ts";
import { decodeStepCost, measureRoofs } from "./roofline.ts";
import type { Roofs } from "../backend/types.ts";
import { Runner } from "../engine/runner.ts";

/** What to measure. */
export interface SweepOptions {
  /** Default 1, 2, 4, … 128. */
  batchSizes?: readonly number[];
  /** Tokens of every prompt, or `mixed`: 4 to 60, by the seed, so that padding is part of the work. Default 7. */
  promptTokens?: number | "mixed";
  /** New tokens of every row. Default 10. */
  maxTokens?: number;
  /**
   * How to spread the rows over the processor; sizes with fewer rows than lanes get a lane a row. Default: as the model's
   * plan says.
   */
  parallelism?: Parallelism;
  /** Runs of each size that are not counted. Default 1. */
  warmup?: number;
  /** Runs of each size that are counted; their median is the result. Default 3. */
  repeats?: number;
  /** Makes the prompts. Default 0. */
  seed?: number;
  /** What the model is called in the result. */
  name?: string;
  /** Called before each run with how many of all runs are done, and the size that comes next. */
  onProgress?: (done: number, total: number, batchSize: number) => void;
}

/** What was measured at one batch size: medians of the counted runs. Times are seconds, rates tokens per second. */
export interface SweepPoint {
  /** Rows of the batch. */
  batchSize: number;
  /** Groups of rows that ran side by side. */
  lanes: number;
  /** Threads of each of them. */
  threadsPerLane: number;
  /** From the prompts to the last token. */
  totalSeconds: number;
  /** From the prompts to the first new token of every row: TTFT. */
  prefillSeconds: number;
  /** From the first new token to the last. */
  decodeSeconds: number;
  /** New tokens of all rows per second, prefill included. */
  throughput: number;
  /** Seconds per new token of a row, prefill included. */
  latency: number;
  /** New tokens of all rows per second after prefill; null when there is only one new token. */
  decodeThroughput: number | null;
  /** Throughput against that of the smallest batch in the sweep. */
  speedup: number;
  /** Model bandwidth utilisation of a decode step: bytes that must be read / time / measured bandwidth. */
  mbu: number | null;
  /** Model FLOPs utilisation of a decode step: operations / time / measured rate of a large product in the same dtype. */
  mfu: number | null;
  /** Memory of the cache. */
  kvCacheBytes: number;
  /** The share of the prompts' rectangle that is padding. */
  paddingShare: number;
  /** Total seconds of each counted run. */
  repeats: number[];
}

/** A sweep, with all that is needed to compare it with another one. */
export interface SweepResult {
  /** Changes when fields do. */
  schemaVersion: 1;
  /** ISO 8601. */
  created: string;
  /** The machine. */
  host: { cpu: string; cores: number; memoryBytes: number; os: string };
  /** The software. */
  versions: { deno: string; backend: string };
  /** The model; its name says so when its weights are random. */
  model: { name: string; parameters: number };
  /** The backend's name. */
  backend: string;
  /** Threads that a step uses. */
  threads: number;
  /** Element type of the linear layers' weights. */
  dtype: Dtype;
  /** Tokens of every prompt. */
  promptTokens: number | "mixed";
  /** New tokens of every row. */
  maxTokens: number;
  /** Runs of each size that were not counted. */
  warmup: number;
  /** What made the prompts. */
  seed: number;
  /** What the machine could do at most. */
  roofs: Roofs;
  /** In the order of the batch sizes asked for. */
  points: SweepPoint[];
}

/** What the source reports: GPT-2 124M, seven-token prompts, ten new tokens. Latency is best around batch 4 to 8. */
export const SOURCE_POINTS: readonly { batchSize: number; throughput: number }[] = [
  { batchSize: 1, throughput: 34 },
  { batchSize: 128, throughput: 1482 },
];

/**
 * Times generation at every batch size. Sizes take turns, so that a slow minute of the machine falls on all of them; the
 * end-of-text token is ignored, so that all rows do the same work. Throws a RangeError for sizes that make no sense.
 *
 * @example
 * ```ts
 * import { AutoModelForCausalLM, sweep } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const { points } = await sweep(model, { batchSizes: [1, 8], repeats: 1 });
 * for (const { batchSize, throughput } of points) console.log(batchSize, throughput, "tokens per second");
 * ```
 */
export async function sweep(model: GPT2, options: SweepOptions = {}): Promise<SweepResult> {
  const { batchSizes = [1, 2, 4, 8, 16, 32, 64, 128], promptTokens = 7, maxTokens = 10 } = options;
  const { warmup = 1, repeats = 3, seed = 0, name = "GPT-2", parallelism, onProgress } = options;
  checkWhole({ repeats, maxTokens, ...promptTokens !== "mixed" && { promptTokens } });
  for (const batchSize of batchSizes) checkWhole({ batchSize });
  if (parallelism) checkParallelism(parallelism, Math.max(...batchSizes));
  const spread = (rows: number) =>
    parallelism ? { ...parallelism, lanes: Math.min(parallelism.lanes, rows) } : parallelismFor(model, rows);
  const batches = batchSizes.map((size) => prompts(size, promptTokens, seed, model.config.vocab_size));
  const timings = batches.map((): Timing[] => []);
  const total = (warmup + repeats) * batches.length;
  const measure = () => measureRoofs(model.backend, { dtype: model.dtype });
  const before = await measure();
  for (let run = 0; run < total; run++) {
    const i = run % batches.length;
    onProgress?.(run, total, batchSizes[i]);
    const timing = await timeGeneration(model, batches[i], maxTokens, spread(batchSizes[i]));
    if (run >= warmup * batches.length) timings[i].push(timing);
  }
  onProgress?.(total, total, batchSizes[0]);
  const after = await measure(); // the machine may have been busy once
  const roofs = {
    bandwidth: Math.max(before.bandwidth, after.bandwidth),
    flops: Math.max(before.flops, after.flops),
  };
  const points = batches.map((batch, i) => toPoint(model, batch, maxTokens, timings[i], roofs, spread(batchSizes[i])));
  const [first] = points.toSorted((a, b) => a.batchSize - b.batchSize);
  return {
    schemaVersion: 1,
    created: new Date().toISOString(),
    host: {
      cpu: cpus()[0]?.model.trim() ?? "unknown",
      cores: navigator.hardwareConcurrency,
      memoryBytes: Deno.systemMemoryInfo().total,
      os: `${Deno.build.os} ${Deno.build.arch}`,
    },
    versions: { deno: Deno.version.deno, backend: model.backend.description },
    model: { name, parameters: parameterCount(model.config) },
    backend: model.backend.name,
    threads: model.backend.threads,
    dtype: model.dtype,
    promptTokens,
    maxTokens,
    warmup,
    seed,
    roofs,
    points: points.map((point) => ({ ...point, speedup: point.throughput / first.throughput })),
  };
}

/** How long one batch took. */
export interface Timing {
  /** Until the first new token of every row is known. */
  prefillSeconds: number;
  /** From then until the last one is. */
  decodeSeconds: number;
}

/**
 * Generates `maxTokens` tokens for every row and says how long that took. The results are read inside the timed part.
 *
 * @example
 * ```ts
 * import { AutoModelForCausalLM, AutoTokenizer, timeGeneration } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const inputs = tokenizer(["Call me", "What comes up must"], { padding: true });
 * const { prefillSeconds, decodeSeconds } = await timeGeneration(model, inputs, 10);
 * console.log(prefillSeconds, "seconds to the first token,", decodeSeconds / 9, "to each of the others");
 * ```
 */
export async function timeGeneration(
  model: GPT2,
  inputs: Batch,
  maxTokens: number,
  parallelism?: Parallelism,
): Promise<Timing> {
  const start = performance.now();
  using generation = await prefill(model, inputs, { maxTokens, ignoreEos: true, parallelism });
  const first = performance.now();
  while (!generation.finished) await decodeSteps(model, generation);
  return { prefillSeconds: (first - start) / 1000, decodeSeconds: (performance.now() - first) / 1000 };
}

/** What {@link timeDecodeSteps} measures. */
export interface DecodeTimingOptions {
  /** Tokens of every row in the cache before the first step. Default 16. */
  context?: number;
  /** Steps that count. Default 5. */
  steps?: number;
  /** How to spread the rows over the processor. Default: as the model's plan says. */
  parallelism?: Parallelism;
}

/**
 * The seconds of single decode steps, after one that does not count. Time does not depend on what the cache holds, so it
 * is left at zeros: long contexts need no prefill.
 *
 * @example
 * ```ts
 * import { AutoModelForCausalLM, median, timeDecodeSteps } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * console.log(median(await timeDecodeSteps(model, 8, { context: 200 })), "seconds for a step of eight rows");
 * ```
 */
export async function timeDecodeSteps(
  model: GPT2,
  batchSize: number,
  options: DecodeTimingOptions = {},
): Promise<number[]> {
  const { context = 16, steps = 5 } = options;
  checkWhole({ batchSize, steps, context });
  const parallelism = parallelismFor(model, batchSize, options.parallelism);
  const needed = context + steps + 1, { n_positions } = model.config;
  if (needed > n_positions) {
    throw new RangeError(
      `Cannot measure ${steps} steps after ${context} tokens: with the warm-up that makes ${needed} and the model ` +
        `holds ${n_positions}. Lower the context to ${n_positions - steps - 1}.`,
    );
  }
  checkMemory(model, batchSize, 1, needed);
  using cache = new KvCache(model, parallelism);
  const feeds = cache.admit({ slots: Array(batchSize).fill(needed), length: context }).map((row) => ({
    row,
    tokens: [0],
  }));
  const seconds: number[] = [];
  for (let i = 0; i <= steps; i++) {
    const start = performance.now();
    await Runner.of(model).step(cache, feeds);
    if (i > 0) seconds.push((performance.now() - start) / 1000);
  }
  return seconds;
}

/** The fox, repeated or cut to the length asked for; for `mixed`, lengths from 4 to 60 in every row. */
function prompts(batchSize: number, promptTokens: number | "mixed", seed: number, vocabSize: number): Batch {
  const random = seededRandom(seed);
  const rows = Array.from({ length: batchSize }, () => {
    const length = promptTokens === "mixed" ? 4 + Math.floor(random() * 57) : promptTokens;
    return Array.from({ length }, (_, i) => FOX[i % FOX.length] % vocabSize);
  });
  return padBatch(rows, { padTokenId: 0 });
}

function toPoint(
  model: GPT2,
  batch: Batch,
  maxTokens: number,
  timings: Timing[],
  roofs: Roofs,
  { lanes, threads }: Parallelism,
): SweepPoint {
  const batchSize = batch.inputIds.length, slots = batch.inputIds[0].length + maxTokens - 1;
  const prefillSeconds = median(timings.map((timing) => timing.prefillSeconds));
  const decodeSeconds = median(timings.map((timing) => timing.decodeSeconds));
  const repeats = timings.map((timing) => timing.prefillSeconds + timing.decodeSeconds);
  const totalSeconds = median(repeats), steps = maxTokens - 1;
  const cost = decodeStepCost(model.config, model.dtype, batchSize, slots, model.cachedBytes);
  return {
    batchSize,
    lanes,
    threadsPerLane: threads,
    totalSeconds,
    prefillSeconds,
    decodeSeconds,
    throughput: batchSize * maxTokens / totalSeconds,
    latency: totalSeconds / maxTokens,
    decodeThroughput: steps ? batchSize * steps / decodeSeconds : null,
    speedup: 1,
    mbu: steps ? cost.bytes * steps / decodeSeconds / roofs.bandwidth : null,
    mfu: steps ? cost.flops * steps / decodeSeconds / roofs.flops : null,
    kvCacheBytes: KvCache.bytes(model.config, batchSize, slots, model.cachedBytes),
    paddingShare: paddingShare(batch),
    repeats,
  };
}

function checkWhole(numbers: Record<string, number>): void {
  for (const [name, value] of Object.entries(numbers)) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    throw new RangeError(`Cannot measure with ${name} ${value}: it must be a whole number from 1 up.`);
  }
}
