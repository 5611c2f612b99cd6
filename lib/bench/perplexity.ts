/** How well a model predicts a text: what rounding its weights costs. */

import type { GPT2 } from "../gpt2/model.ts";
import { KvCache } from "../engine/kv_cache.ts";
import { Runner } from "../engine/runner.ts";

/** How well a text was predicted. */
export interface Prediction {
  /** exp of the mean negative log-probability of the tokens: as if so many tokens were equally likely each time. */
  perplexity: number;
  /** [rows][window − 1]: the model's first choice after each token. */
  choices: number[][];
}

/**
 * Feeds rows of equal length token by token and looks at what the model expects next. Each row is a text of its own.
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
  for (let i = 0; i + 1 < length; i++) {
    const logits = await Runner.of(model).logits(cache, rows.map((row, r) => ({ row: admitted[r], tokens: [row[i]] })));
    for (const [r, values] of logits.entries()) {
      const largest = values.reduce((a, b) => Math.max(a, b));
      const total = values.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
      choices[r].push(values.indexOf(largest));
      surprise += Math.log(total) + largest - values[rows[r][i + 1]];
    }
  }
  return { perplexity: Math.exp(surprise / (rows.length * (length - 1))), choices };
}
