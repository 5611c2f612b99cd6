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

// Where models run.
export { useBackend } from "./backend/select.ts";
export type { BackendOptions } from "./backend/select.ts";
export { BACKENDS } from "./backend/types.ts";
export type { Backend, BackendName, Parallelism } from "./backend/types.ts";
export { DTYPES } from "./backend/ops.ts";
export type { Dtype } from "./backend/ops.ts";
export type { ActivationRange, ActivationRanges } from "./backend/int8.ts";

// Text to tokens and back, and prompts as a batch.
export { AutoTokenizer } from "./tokenizer/tokenizer.ts";
export type { DecodeOptions, TokenizeOptions, Tokenizer } from "./tokenizer/tokenizer.ts";
export type { TextStream } from "./tokenizer/text_stream.ts";
export { padBatch, paddingShare, positionIds } from "./tokenizer/batch.ts";
export type { Batch, PaddingSide } from "./tokenizer/batch.ts";

// Models: from a folder, of a published size with random weights, in low precision, and one that hides nothing.
export { AutoModelForCausalLM, loadGPT2, randomGPT2 } from "./pretrained.ts";
export type { LoadOptions } from "./pretrained.ts";
export type { BuildOptions } from "./gpt2/load.ts";
export type { GPT2 } from "./gpt2/model.ts";
export { GPT2_SIZES, gpt2Config, parameterCount } from "./gpt2/config.ts";
export type { GPT2Config, GPT2Size } from "./gpt2/config.ts";
export { quantizeModel } from "./gpt2/quantize.ts";
export type { LowPrecisionDtype } from "./gpt2/quantize.ts";
export { PlainGPT2 } from "./gpt2/plain.ts";
export type { PlainInputs, PlainOutputs } from "./gpt2/plain.ts";

// Generating text: whole answers, step by step, without a cache, or by hand.
export { generateBatch, generateSteps, generateTokenKvCaching } from "./engine/generate.ts";
export type { GenerateOptions, NextTokens, Step } from "./engine/generate.ts";
export { generateStepsWithoutCache } from "./engine/without_cache.ts";
export type { AnswerOptions, Generated } from "./engine/request.ts";
export { Runner } from "./engine/runner.ts";
export type { NextToken, Plan, StepOptions } from "./engine/runner.ts";
export type { SampledRow } from "./engine/sampled_row.ts";
export type { Feed, Wanted } from "./engine/step_inputs.ts";
export { Engine, QueueFull, TooLarge } from "./engine/engine.ts";
export type { EngineOptions, SubmitOptions } from "./engine/engine.ts";
export type { Answering, AnswerTimes, Piece } from "./engine/job.ts";
export { byPriority, firstCome, shortestPrompt } from "./engine/policy.ts";
export type { Policy, Waiting } from "./engine/policy.ts";
export { Timeline } from "./engine/timeline.ts";
export type { StepEvent, StepRecord, StepRow, TraceEvent } from "./engine/timeline.ts";
export { KvCache } from "./engine/kv_cache.ts";
export type { Phase, Row } from "./engine/bucket.ts";
export { nextTokenLogits, topTokens } from "./engine/logits.ts";
export type { Candidate } from "./engine/logits.ts";
export { Interrupted, interruptSignal } from "./util/interrupt.ts";

// Choosing the next token: the settings, what they make of the model's answer, and the random number of each token.
export { samplingSettings } from "./engine/sampling.ts";
export type { FilterOrder, SamplingOptions, SamplingSettings } from "./engine/sampling.ts";
export { probabilities } from "./engine/probabilities.ts";
export { uniformOf } from "./engine/uniform.ts";

// Measuring: what batches of all sizes take.
export { SOURCE_POINTS, sweep, timeDecodeSteps, timeGeneration } from "./bench/measure.ts";
export type { DecodeTimingOptions, SweepOptions, SweepPoint, SweepResult, Timing } from "./bench/measure.ts";
export { median } from "./util/median.ts";
export { seededRandom } from "./util/random.ts";

// The roofline: what a step has to do, and what the machine could do at most.
export { decodeStepCost, decodeStepParts, kneeBatchSize, rooflineSeconds } from "./bench/roofline.ts";
export { measureRoofs, timeLinear, timeReading } from "./bench/roofline.ts";
export type { LinearShape, MeasureOptions, StepCost, StepPart } from "./bench/roofline.ts";
export type { Roofs } from "./backend/types.ts";
