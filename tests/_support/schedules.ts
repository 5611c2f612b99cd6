/** Random schedules of rows that come and go: what a scheduler may do to a cache, and more. */

import { KvCache } from "../../lib/engine/kv_cache.ts";
import type { Row } from "../../lib/engine/bucket.ts";
import { Runner } from "../../lib/engine/runner.ts";
import type { GPT2 } from "../../lib/gpt2/model.ts";
import { seededRandom } from "../../lib/util/random.ts";

/** What a row's tokens so far led to. */
export interface Observation {
  /** All that the row was fed. */
  tokens: number[];
  /** The logits after the last of them. */
  logits: number[];
}

/** How wild a schedule is. */
export interface ScheduleOptions {
  seed: number;
  /** Steps. */
  steps: number;
  /** The most rows at a time. */
  maxRows: number;
  lanes?: number;
}

/**
 * Rows join with random prompts, are fed random chunks or single tokens, some of them each step, are rewound, forked, moved
 * to other groups and released, in an order that follows from the seed. Yields what came out after every row that was fed.
 */
export async function* randomSchedule(
  model: GPT2,
  { seed, steps, maxRows, lanes = 1 }: ScheduleOptions,
): AsyncGenerator<Observation> {
  const random = seededRandom(seed), upTo = (n: number) => 1 + Math.floor(random() * n);
  const { vocab_size, n_positions } = model.config, token = () => upTo(vocab_size) - 1;
  const group = () => random() < 0.7 ? "" : "other";
  using cache = new KvCache(model, { lanes, threads: Math.max(1, Math.floor(model.backend.threads / lanes)) });
  const rows = new Map<Row, number[]>(); // what each was fed
  for (let step = 0; step < steps; step++) {
    while (rows.size < maxRows && (rows.size === 0 || random() < 0.3)) {
      const count = Math.min(upTo(4), maxRows - rows.size);
      const lengths = Array.from({ length: count }, () => random() < 0.2 ? upTo(60) : upTo(9));
      for (const row of cache.admit({ slots: lengths, group: group() })) rows.set(row, []);
    }
    cache.regroup([...rows.keys()].filter(() => random() < 0.2), group());
    if (random() < 0.1) cache.trim();
    for (const [row, fed] of [...rows]) {
      const chance = random();
      if (chance < 0.06) {
        cache.release(row);
        rows.delete(row);
      } else if (chance < 0.12) {
        cache.rewind(row, upTo(fed.length + 1) - 1);
        fed.length = row.length;
      } else if (chance < 0.18 && rows.size < maxRows && fed.length) {
        const length = upTo(fed.length);
        rows.set(cache.fork(row, length, group()), fed.slice(0, length));
      }
    }
    const everyOne = random() < 0.5; // a step as decoding has them: one token of each row
    const feeds = [...rows].flatMap(([row, fed]) => {
      const room = n_positions - fed.length, count = everyOne ? 1 : random() < 0.3 ? 0 : random() < 0.5 ? 1 : upTo(20);
      return count === 0 || room < count ? [] : [{ row, tokens: Array.from({ length: count }, token) }];
    });
    if (feeds.length === 0) continue;
    const logits = await Runner.of(model).logits(cache, feeds);
    for (const [i, { row, tokens }] of feeds.entries()) {
      rows.get(row)!.push(...tokens);
      yield { tokens: [...rows.get(row)!], logits: Array.from(logits[i]) };
    }
  }
}
