/** Where the time of a decode step goes: the backend's trace of it, added up by part of the model and operation. */

import type { Parallelism } from "../backend/types.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { parallelismFor } from "../engine/parallelism.ts";
import { KvCache } from "../engine/kv_cache.ts";
import { Runner } from "../engine/runner.ts";

/** What some operations of a step took together. */
export interface ProfileEntry {
  /** `embed`, `attn`, `mlp`, `head` or `step`: where in the model they are, all layers together. */
  part: string;
  /** The backend's name for the operation. */
  op: string;
  /** How many there are. */
  count: number;
  /** What they took, added up; threads that worked side by side count twice. */
  seconds: number;
}

/** A profile of one decode step of one lane. */
export interface Profile {
  /** From the start of the first operation to the end of the last. */
  stepSeconds: number;
  /** Rows of the lane. */
  rows: number;
  /** Threads that it used. */
  threads: number;
  /** By time, the longest first. */
  entries: ProfileEntry[];
}

/**
 * Traces a decode step of `batchSize` rows with `slots` slots in the cache. Where the batch runs in several lanes, that of
 * the first one. Throws a RangeError on a backend that has no trace.
 */
export async function profileStep(
  model: GPT2,
  { batchSize, slots, parallelism }: {
    batchSize: number;
    slots: number;
    parallelism?: Parallelism;
  },
): Promise<Profile> {
  const { trace, name, description } = model.backend;
  if (!trace) {
    throw new RangeError(
      `Cannot profile on the ${name} backend (${description}): it keeps no trace. Use tensorflow or onednn.`,
    );
  }
  const { lanes, threads } = parallelismFor(model, batchSize, parallelism), rows = Math.ceil(batchSize / lanes);
  using cache = new KvCache(model);
  const admitted = cache.admit({ slots: Array(rows).fill(slots), length: slots - 1 });
  const { inputs, build, dispose } = Runner.of(model).stepFunction(admitted.map((row) => ({ row, tokens: [0] })));
  try {
    const operations = await trace(inputs, build, { lanes: 1, threads });
    const entries = new Map<string, ProfileEntry>();
    for (const { name, duration, threads } of operations) {
      const path = name.split("/"), op = path.at(-1)!.replace(/_\d+$/, "");
      const part = path.find((folder) => ["embed", "attn", "mlp", "head"].includes(folder)) ?? "step";
      const entry = entries.get(`${part}/${op}`) ?? { part, op, count: 0, seconds: 0 };
      entries.set(`${part}/${op}`, entry);
      entry.count++;
      entry.seconds += threads * duration / 1e6;
    }
    return {
      stepSeconds: Math.max(...operations.map(({ start, duration }) => start + duration)) / 1e6,
      rows,
      threads,
      entries: [...entries.values()].sort((a, b) => b.seconds - a.seconds),
    };
  } finally {
    dispose();
  }
}
