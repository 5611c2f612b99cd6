/**
 * Lanes or threads: how a batch is best spread over the processor.
 *
 * The work of a step is divided in four ways. Rows into **lanes**, each of which goes through the model by itself and reads all
 * the weights; a lane's rows into **buckets** of similar length, which attend together (bucket.ts). A model's heads and hidden
 * units into **groups**, one for each core, which read the same residual stream and meet twice a block (gpt2/layers.ts); and
 * the columns of a large weight into **parts**, so that cores share the head (tensorflow/column_parts.ts).
 *
 * Groups and parts follow from the machine. How many lanes are best depends on the machine, the model, its dtype and the
 * batch size, so it is measured: see ../bench/calibrate.ts.
 */

import type { Backend, Parallelism } from "../backend/types.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { checkParallelism } from "./limits.ts";
import { Runner } from "./runner.ts";

/**
 * What to use for a batch size: what was asked for, if it was; else what the plan has for the size nearest to it, by ratio;
 * else a guess. Throws a RangeError if what was asked for makes no sense here.
 */
export function parallelismFor(model: GPT2, batchSize: number, asked?: Parallelism): Parallelism {
  if (asked) {
    checkParallelism(asked, batchSize);
    return asked;
  }
  const { plan } = Runner.of(model);
  const distance = (size: number) => Math.abs(Math.log(size / batchSize));
  const [nearest] = plan.toSorted((a, b) => distance(a.batchSize) - distance(b.batchSize));
  if (nearest) return { lanes: Math.min(nearest.lanes, batchSize), threads: nearest.threads };
  return guessedParallelism(model.backend, batchSize);
}

/** What is likely to be best where nothing was measured: as few lanes as keep all threads at work. */
export function guessedParallelism({ threads, lanes: most, groups, capture }: Backend, batchSize: number): Parallelism {
  if (!capture) return { lanes: 1, threads };
  const lanes = Math.max(1, Math.min(batchSize, Math.floor(most / groups))); // the groups share a lane's threads
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
