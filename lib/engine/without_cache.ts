/** Generating without a KV cache: the same answers for more and more work. To compare with, and to learn from. */

import { type Batch, longest, padBatch, realTokens } from "../tokenizer/batch.ts";
import { generateBatch, type Generated, type GenerateOptions, type Step } from "./generate.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { checkContext, checkMaxTokens } from "./limits.ts";

/**
 * Like {@link generateSteps}, but keeps nothing from one step to the next: each feeds the whole text of every row again, so
 * that the work grows with the square of the length. Throws what {@link prefill} throws.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { AutoModelForCausalLM, AutoTokenizer, generateSteps, generateStepsWithoutCache } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const inputs = tokenizer(["Call me", "What comes up must"], { padding: true });
 * const cached = await Array.fromAsync(generateSteps(model, inputs, { maxTokens: 5 }));
 * assert.deepEqual(await Array.fromAsync(generateStepsWithoutCache(model, inputs, { maxTokens: 5 })), cached);
 * ```
 */
export async function* generateStepsWithoutCache(
  model: GPT2,
  inputs: Batch,
  options: GenerateOptions,
): AsyncGenerator<Step, Generated[]> {
  const { config } = model;
  checkMaxTokens(options.maxTokens);
  const texts = realTokens(inputs, { vocabSize: config.vocab_size });
  checkContext(longest(texts), options.maxTokens, config.n_positions);
  const answers: Generated[] = [];
  for (let index = 0; index < options.maxTokens; index++) {
    const batch = padBatch(texts, { padTokenId: 0 });
    const next = await generateBatch(model, batch, { ...options, maxTokens: 1 });
    const tokens = next.map(({ tokens: [token], finishReason, logprobs }, row) => {
      texts[row].push(token); // a row that has ended is carried along, and ignored
      if (answers[row]?.finishReason === "stop") return null;
      answers[row] ??= { tokens: [], finishReason, ...logprobs && { logprobs: [] } };
      answers[row].tokens.push(token);
      answers[row].logprobs?.push(...logprobs!);
      answers[row].finishReason = finishReason;
      return token;
    });
    yield { index, tokens };
    if (answers.every(({ finishReason }) => finishReason === "stop")) break;
  }
  return answers;
}
