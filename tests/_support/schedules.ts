/** Random schedules of rows that come and go: what a scheduler may do to a cache, and more. */

import { KvCache } from "../../lib/engine/kv_cache.ts";
import type { Row } from "../../lib/engine/bucket.ts";
import { type NextToken, Runner } from "../../lib/engine/runner.ts";
import { SampledRow } from "../../lib/engine/sampled_row.ts";
import { type SamplingOptions, samplingSettings } from "../../lib/engine/sampling.ts";
import type { GPT2 } from "../../lib/gpt2/model.ts";
import { seededRandom } from "../../lib/util/random.ts";

/** What a row's tokens so far led to. */
export interface Observation {
  /** All that the row was fed. */
  tokens: number[];
  /** The logits after the last of them. */
  logits: number[];
}

/** What was chosen after a row's tokens so far. */
export interface Choice {
  /** All that the row was fed. */
  tokens: number[];
  /** The next token, and the logarithm of its probability. */
  next: NextToken;
  /** What chose it. */
  options: SamplingOptions;
  uniform: number;
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

/** Settings of a row: greedy ones, and all kinds of others. */
function randomSettings(random: () => number, seed: number): SamplingOptions {
  const sometimes = (name: keyof SamplingOptions, value: number) => random() < 0.4 ? { [name]: value } : {};
  return {
    seed,
    temperature: random() < 0.3 ? 0 : 0.3 + random(),
    ...sometimes("topK", 1 + Math.floor(random() * 70)),
    ...sometimes("topP", 0.3 + 0.7 * random()),
    ...sometimes("minP", 0.1 * random()),
    ...sometimes("repetitionPenalty", 0.8 + random()),
  };
}

/** Yields the logits after every row that was fed; see {@link randomFeeds}. */
export async function* randomSchedule(model: GPT2, options: ScheduleOptions): AsyncGenerator<Observation> {
  for await (const { cache, feeds, fed } of randomFeeds(model, options)) {
    const logits = await Runner.of(model).logits(cache, feeds);
    for (const [i, tokens] of fed().entries()) yield { tokens, logits: Array.from(logits[i]) };
  }
}

/** Yields what each row's own settings chose after every row that was fed; see {@link randomFeeds}. */
export async function* randomChoices(model: GPT2, options: ScheduleOptions): AsyncGenerator<Choice> {
  const random = seededRandom(options.seed + 1);
  let choice = 0;
  for await (const { cache, feeds, fed } of randomFeeds(model, options)) {
    const tokens = fed(),
      rows = tokens.map((prompt, i) => {
        const own = randomSettings(random, 100 * options.seed + i);
        const settings = samplingSettings(own, { vocabSize: model.config.vocab_size });
        return { own, sampled: new SampledRow(settings, { prompt, choice: choice++ }) };
      });
    const wanted = feeds.map((feed, i) => ({
      ...feed,
      wanted: [{ after: feed.tokens.length - 1, next: rows[i].sampled }],
    }));
    const next = await Runner.of(model).step(cache, wanted, { logprobs: true });
    for (const [i, { own, sampled }] of rows.entries()) {
      yield { tokens: tokens[i], next: next[i], options: own, uniform: sampled.uniform };
    }
  }
}

/**
 * Rows join with random prompts, are fed random chunks or single tokens, some of them each step, are rewound, forked, put
 * into other phases and released, in an order that follows from the seed. Each yield is to be fed to its cache; `fed` are the
 * rows' tokens then.
 */
async function* randomFeeds(
  model: GPT2,
  { seed, steps, maxRows, lanes = 1 }: ScheduleOptions,
): AsyncGenerator<{ cache: KvCache; feeds: { row: Row; tokens: number[] }[]; fed: () => number[][] }> {
  const random = seededRandom(seed), upTo = (n: number) => 1 + Math.floor(random() * n);
  const { vocab_size, n_positions } = model.config, token = () => upTo(vocab_size) - 1;
  const phase = () => random() < 0.7 ? "decode" : "prefill";
  using cache = new KvCache(model, { lanes, threads: Math.max(1, Math.floor(model.backend.threads / lanes)) });
  const rows = new Map<Row, number[]>(); // what each was fed
  for (let step = 0; step < steps; step++) {
    while (rows.size < maxRows && (rows.size === 0 || random() < 0.3)) {
      const count = Math.min(upTo(4), maxRows - rows.size);
      const lengths = Array.from({ length: count }, () => random() < 0.2 ? upTo(60) : upTo(9));
      for (const row of cache.admit({ slots: lengths, phase: phase() })) rows.set(row, []);
    }
    cache.setPhase([...rows.keys()].filter(() => random() < 0.2), phase());
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
        rows.set(cache.fork(row, length, phase()), fed.slice(0, length));
      }
    }
    const everyOne = random() < 0.5; // a step as decoding has them: one token of each row
    const feeds = [...rows].flatMap(([row, fed]) => {
      const room = n_positions - fed.length, count = everyOne ? 1 : random() < 0.3 ? 0 : random() < 0.5 ? 1 : upTo(20);
      return count === 0 || room < count ? [] : [{ row, tokens: Array.from({ length: count }, token) }];
    });
    if (feeds.length === 0) continue;
    for (const { row, tokens } of feeds) rows.get(row)!.push(...tokens);
    yield { cache, feeds, fed: () => feeds.map(({ row }) => [...rows.get(row)!]) };
  }
}
