/** Steps of all kinds that requests bring about, each run once beforehand: then nobody has to wait while one is captured. */

import type { Parallelism } from "../backend/types.ts";
import type { GPT2 } from "../gpt2/model.ts";
import type { Phase } from "./bucket.ts";
import { KvCache } from "./kv_cache.ts";
import { Runner } from "./runner.ts";
import { GREEDY, SampledRow } from "./sampled_row.ts";
import { samplingSettings } from "./sampling.ts";
import type { Limits } from "./scheduler.ts";

/** How many tokens each row is fed, by phase: rows of different phases lie in different buckets. */
type Counts = Partial<Record<Phase, number[]>>;

/** Runs the steps of an engine with these limits, where it takes long to capture one. */
export async function warmUp(
  model: GPT2,
  { maxBatch, stepTokens }: Pick<Limits, "maxBatch" | "stepTokens">,
  { lanes, threads }: Parallelism,
): Promise<void> {
  const { backend, config: { n_positions, vocab_size: vocabSize } } = model;
  if (!backend.stepBuckets) return;
  const drawn = new SampledRow(samplingSettings({ temperature: 1, seed: 0 }, { vocabSize }), { prompt: [] });
  const ones = (count: number): number[] => Array(count).fill(1);
  const run = async (counts: Counts, sampled = false) => {
    using cache = new KvCache(model, { lanes: 1, threads: lanes * threads });
    const feeds = Object.entries(counts).flatMap(([phase, slots]) => {
      const rows = cache.admit({ slots, phase: phase as Phase });
      return rows.map((row, i) => ({
        row,
        tokens: Array(slots[i]).fill(0),
        wanted: [{ after: slots[i] - 1, next: sampled ? drawn : GREEDY }],
      }));
    });
    await Runner.of(model).step(cache, feeds);
  };
  for (const count of sizes(model, maxBatch)) {
    for (const sampled of [false, true]) await run({ decode: ones(count) }, sampled);
    if (count > 1) await run({ decode: ones(count - 1), prefill: [1] });
  }
  for (const count of sizes(model, Math.min(stepTokens, n_positions))) {
    if (count > 1) await run({ prefill: [count] });
    if (count > 2) await run({ decode: [1], prefill: [count - 1] });
  }
}

/** For each class of sizes that a backend captures apart, the most tokens, up to a limit. */
function sizes({ backend, dtype }: GPT2, most: number): Iterable<number> {
  const largest = new Map<string | undefined, number>();
  for (let count = 1; count <= most; count++) largest.set(backend.sizeClass?.(count, count, dtype), count);
  return largest.values();
}
