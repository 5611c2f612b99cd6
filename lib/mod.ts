/**
 * Batched GPT-2 for Deno: why and how batching makes language-model inference fast, in code to read, run and keep.
 *
 * @example
 * ```ts
 * import { AutoModelForCausalLM, AutoTokenizer, generateBatch } from "./mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const prompts = ["The quick brown fox jumped over the", "Never have I ever", "What comes up must"];
 * const inputs = tokenizer(prompts, { padding: true });
 * const answers = await generateBatch(model, inputs, { maxTokens: 10 });
 * answers.forEach(({ tokens }, i) => console.log(prompts[i] + tokenizer.decode(tokens)));
 * ```
 *
 * @module
 */

export * from "./backend.ts";
export * from "./batch.ts";
export * from "./generate.ts";
export * from "./gpt2/cache_view.ts";
export * from "./gpt2/config.ts";
export * from "./gpt2/kv_cache.ts";
export * from "./gpt2/layers.ts";
export * from "./gpt2/load.ts";
export * from "./gpt2/model.ts";
export { Interrupted, interruptSignal } from "./interrupt.ts";
export * from "./gpt2/plain.ts";
export { type Candidate, nextTokenLogits, topTokens } from "./logits.ts";
export * from "./measure.ts";
export * from "./ops.ts";
export * from "./parallelism.ts";
export * from "./profile.ts";
export { quantizeModel } from "./quantize.ts";
export * from "./roofline.ts";
export * from "./step.ts";
export * from "./tokenizer.ts";
export * from "./without_cache.ts";
export type { OperationTime } from "./tensorflow/trace.ts";
