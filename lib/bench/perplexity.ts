/** How well a model predicts a text: what rounding its weights costs. */

import type { GPT2 } from "../gpt2/model.ts";
import { KvCache } from "../engine/kv_cache.ts";
import { prefillChunk } from "../engine/memory.ts";
import { Runner } from "../engine/runner.ts";

/** How well a text was predicted. */
export interface Prediction {
  /** exp of the mean negative log-probability of the tokens: as if so many tokens were equally likely each time. */
  perplexity: number;
  /** [rows][window − 1]: the model's first choice after each token. */
  choices: number[][];
}

/**
 * Feeds rows of equal length, and looks at what the model expects after each token. Each row is a text of its own.
 * Throws a RangeError if the rows differ in length or are longer than the model's context.
 */
export async function predict(model: GPT2, rows: readonly (readonly number[])[]): Promise<Prediction> {
  const length = rows[0]?.length ?? 0;
  if (length < 2 || length > model.config.n_positions || rows.some((row) => row.length !== length)) {
    throw new RangeError(
      `Cannot predict rows of ${length} tokens: all must have the same length, from 2 to ${model.config.n_positions}.`,
    );
  }
  using cache = new KvCache(model);
  const admitted = cache.admit({ slots: rows.map(() => length) });
  const choices = rows.map((): number[] => []);
  let surprise = 0;
  const chunk = prefillChunk(model.config, rows.length, length, true);
  for (let start = 0; start + 1 < length; start += chunk) {
    const feeds = rows.map((row, r) => {
      const tokens = row.slice(start, Math.min(start + chunk, length - 1));
      return { row: admitted[r], tokens, wanted: tokens.map((_, t) => ({ after: t, next: row[start + t + 1] })) };
    });
    const predicted = await Runner.of(model).step(cache, feeds, { topLogprobs: 1 });
    for (const [i, { logprob, top }] of predicted.entries()) {
      choices[Math.floor(i / feeds[0].tokens.length)].push(top![0].id);
      surprise -= logprob!;
    }
  }
  return { perplexity: Math.exp(surprise / (rows.length * (length - 1))), choices };
}
