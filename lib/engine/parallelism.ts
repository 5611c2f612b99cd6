/**
 * Lanes or threads: how a batch is best spread over the processor.
 *
 * The cores can share each step, by the groups of heads and hidden units that a model is divided into, or each take some of
 * the rows through a step of their own. Groups meet twice a block; lanes never do, but each of them reads all the weights.
 * Which wins depends on the machine, the model, its dtype and the batch size, so it is measured: see ../bench/calibrate.ts.
 */

import type { Parallelism } from "../backend/types.ts";
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
  const { threads, groups, capture } = model.backend, { plan } = Runner.of(model);
  if (!capture) return { lanes: 1, threads };
  const distance = (size: number) => Math.abs(Math.log(size / batchSize));
  const [nearest] = plan.toSorted((a, b) => distance(a.batchSize) - distance(b.batchSize));
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
