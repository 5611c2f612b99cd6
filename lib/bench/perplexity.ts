/** How well a model predicts a text: what rounding its weights costs. */

import * as tf from "@tensorflow/tfjs";
import type { GPT2 } from "../gpt2/model.ts";
import { feed } from "../engine/logits.ts";

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
export function predict(model: GPT2, rows: readonly (readonly number[])[]): Prediction {
  const length = rows[0]?.length ?? 0;
  if (length < 2 || length > model.config.n_positions || rows.some((row) => row.length !== length)) {
    throw new RangeError(
      `Cannot predict rows of ${length} tokens: all must have the same length, from 2 to ${model.config.n_positions}.`,
    );
  }
  const { ops } = model.backend, B = rows.length;
  using cache = model.allocateCache(rows.map(() => 0), length, { lanes: 1, threads: model.backend.threads });
  const choices = rows.map((): number[] => []);
  let surprise = 0;
  for (let i = 0; i + 1 < length; i++) {
    const column = (j: number) => rows.map((row) => row[j]);
    const logits = feed(model, cache, column(i).map((id) => [id])); // [B, V]
    const [best, logprobs] = tf.tidy(() => {
      const next = tf.oneHot(tf.tensor1d(column(i + 1), "int32"), model.config.vocab_size);
      const target = tf.sum(tf.mul(logits, next), -1); // [B]
      return [ops.argMax([logits]).dataSync(), tf.sub(target, tf.logSumExp(logits, -1)).dataSync()];
    });
    logits.dispose();
    best.forEach((id, row) => choices[row].push(id));
    for (const logprob of logprobs) surprise -= logprob;
  }
  return { perplexity: Math.exp(surprise / (B * (length - 1))), choices };
}
