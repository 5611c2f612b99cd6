/** Generating without a KV cache: the same answers for more and more work. To compare with, and to learn from. */

import type { GPT2 } from "../gpt2/model.ts";
import type { Batch } from "../tokenizer/batch.ts";
import { acceptTokens, type GenerateOptions, nextTokensAfter, requestsFor, type Step } from "./generate.ts";
import type { Generated } from "./request.ts";

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
  const { signal } = options, requests = requestsFor(model, inputs, { ...options, n: 1 }).flat();
  for (let index = 0; requests.some(({ ended }) => !ended); index++) {
    signal?.throwIfAborted();
    const open = requests.filter(({ ended }) => !ended);
    const texts = open.map(({ prompt, answer }) => [...prompt, ...answer.tokens]);
    const next = await nextTokensAfter(model, texts, open.map(({ sampled }) => sampled), options);
    yield acceptTokens(index, requests, open, next);
  }
  return requests.map(({ answer }) => answer);
}
