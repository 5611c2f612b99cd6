/**
 * Lanes or threads: how a batch is best spread over the processor.
 *
 * The cores can share each step, by the groups of heads and hidden units that a model is divided into, or each take some of
 * the rows through a step of their own. Groups meet twice a block; lanes never do, but each of them reads all the weights.
 * Which wins depends on the machine, the model, its dtype and the batch size, so it is measured, once, and kept.
 */

import type { Backend, Parallelism } from "../backend/types.ts";

/** What to use for a batch size: what the plan has for the size nearest to it, by ratio; else a guess. */
export function parallelismFor(
  { backend: { threads, groups, capture }, plan }: { backend: Backend; plan: Plan },
  batchSize: number,
): Parallelism {
  if (!capture) return { lanes: 1, threads };
  const distance = (size: number) => Math.abs(Math.log(size / batchSize));
  const [nearest] = plan.toSorted((a, b) => distance(a.batchSize) - distance(b.batchSize));
  if (nearest) return { lanes: Math.min(nearest.lanes, batchSize), threads: nearest.threads };
  const lanes = Math.max(1, Math.min(batchSize, Math.floor(threads / groups))); // the groups share a lane's threads
  return { lanes, threads: Math.floor(threads / lanes) };
}
