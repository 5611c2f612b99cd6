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

export * from "./backend/select.ts";
export * from "./backend/types.ts";
export * from "./backend/plain.ts";
export * from "./tokenizer/batch.ts";
export * from "./engine/generate.ts";
export * from "./engine/engine.ts";
export type { Answering, Piece } from "./engine/job.ts";
export * from "./engine/policy.ts";
export * from "./engine/timeline.ts";
export * from "./gpt2/step_context.ts";
export * from "./gpt2/config.ts";
export * from "./gpt2/config_file.ts";
export * from "./engine/kv_cache.ts";
export * from "./gpt2/layers.ts";
export type { LoadOptions } from "./gpt2/load.ts";
export * from "./pretrained.ts";
export * from "./gpt2/model.ts";
export { Interrupted, interruptSignal } from "./util/interrupt.ts";
export { median } from "./util/median.ts";
export * from "./gpt2/plain.ts";
export { type Candidate, nextTokenLogits, topTokens } from "./engine/logits.ts";
export * from "./bench/measure.ts";
export * from "./backend/ops.ts";
export * from "./engine/parallelism.ts";
export * from "./bench/calibrate.ts";
export * from "./bench/profile.ts";
export { quantizeModel } from "./gpt2/quantize.ts";
export * from "./bench/roofline.ts";
export * from "./bench/stored_plan.ts";
export { type NextToken, type Plan, Runner, type StepOptions } from "./engine/runner.ts";
export * from "./engine/request.ts";
export * from "./tokenizer/tokenizer.ts";
export * from "./tokenizer/text_stream.ts";
export * from "./engine/without_cache.ts";
export type { OperationTime } from "./tensorflow/capi/trace.ts";
