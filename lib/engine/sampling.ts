/** How a row's next token is chosen: the settings, their defaults, and what is wrong with those that cannot be. */

/**
 * Which filters come first. Both orders change logits by bias and penalties, divide by the temperature and filter; they differ
 * in whether min-p comes before the others (vLLM), so that top-p shares out what it leaves, or after them (Hugging Face).
 */
export type FilterOrder = "vllm" | "huggingface";

/** How to choose the next token. What is left out has no effect; without any of it the most likely token is taken. */
export interface SamplingOptions {
  /** Divides the logits: below 1 the likely tokens gain, above 1 the others. 0, the default, takes the most likely token. */
  temperature?: number;
  /** Only so many of the most likely tokens, and those as likely as the last of them. Default: 0, which is all. */
  topK?: number;
  /** Only the most likely tokens, as many as it takes to have this share of the probability (Holtzman et al. 2020). Default: 1. */
  topP?: number;
  /** Only tokens at least this share as likely as the most likely one (Nguyen et al. 2024). Default: 0. */
  minP?: number;
  /** Divides positive logits of tokens in the prompt or the answer, multiplies negative ones (Keskar et al. 2019). Default: 1. */
  repetitionPenalty?: number;
  /** Taken from the logits of tokens in the answer. Default: 0. */
  presencePenalty?: number;
  /** Taken from the logits of tokens in the answer as often as they occur there. Default: 0. */
  frequencyPenalty?: number;
  /** Added to the logits of tokens, by id. Default: none. */
  logitBias?: Readonly<Record<number, number>>;
  /** The answer cannot end before it has so many tokens. Default: 0. */
  minTokens?: number;
  /**
   * A whole number from which all draws follow, and nothing else: as in vLLM, several prompts with one seed get the same random
   * numbers, each those that it would get alone. Several answers to one prompt get different ones. Default: a random seed for
   * each prompt, which the answer names.
   */
  seed?: number;
  /** Default: `vllm`. */
  filterOrder?: FilterOrder;
}

/** Options that were checked and completed. */
export type SamplingSettings = Readonly<Required<SamplingOptions>>;

/** Temperatures below this are 0: vLLM's limit, and the logits divided by it are still numbers in float32. */
const COLDEST = 1e-5;

/** From, to, and what `settings` have where nothing is asked for. */
export const SAMPLING_RANGES = {
  temperature: [0, 100, 0],
  topK: [0, 2 ** 31 - 1, 0],
  topP: [0, 1, 1],
  minP: [0, 1, 0],
  repetitionPenalty: [0.01, 100, 1],
  presencePenalty: [-2, 2, 0],
  frequencyPenalty: [-2, 2, 0],
  minTokens: [0, 2 ** 31 - 1, 0],
} as const;

const WHOLE: readonly string[] = ["topK", "minTokens"];

/** The range of a bias: OpenAI's. */
export const MOST_BIAS = 100;

/**
 * Checks options and completes them. Throws a RangeError about the first one that cannot be.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { samplingSettings } from "./sampling.ts";
 *
 * const settings = samplingSettings({ temperature: 0.8, topP: 0.95, seed: 7 }, { vocabSize: 50257 });
 * assert.equal(settings.repetitionPenalty, 1);
 * assert.throws(() => samplingSettings({ topP: 95 }, { vocabSize: 50257 }), /topP/);
 * ```
 */
export function samplingSettings(options: SamplingOptions, { vocabSize }: { vocabSize: number }): SamplingSettings {
  const numbers = Object.entries(SAMPLING_RANGES).map(([name, [least, most, fallback]]) => {
    const value = options[name as keyof typeof SAMPLING_RANGES] ?? fallback;
    const whole = WHOLE.includes(name);
    if (!(value >= least && value <= most) || whole && !Number.isInteger(value)) {
      throw new RangeError(
        `Cannot sample with ${name} ${value}: it is a ${whole ? "whole " : ""}number from ${least} to ${most}.`,
      );
    }
    return [name, value];
  });
  const { logitBias = {}, seed = randomSeed(), filterOrder = "vllm" } = options;
  for (const [id, bias] of Object.entries(logitBias)) {
    if (!(Number.isInteger(Number(id)) && Number(id) >= 0 && Number(id) < vocabSize)) {
      throw new RangeError(`Cannot bias token ${id}: the model has tokens 0 to ${vocabSize - 1}.`);
    }
    if (!(Math.abs(bias) <= MOST_BIAS)) {
      throw new RangeError(
        `Cannot bias token ${id} by ${bias}: a bias is a number from ${-MOST_BIAS} to ${MOST_BIAS}.`,
      );
    }
  }
  if (!Number.isSafeInteger(seed)) {
    throw new RangeError(`Cannot sample with seed ${seed}: it is a whole number of at most 53 bits.`);
  }
  if (filterOrder !== "vllm" && filterOrder !== "huggingface") {
    throw new RangeError(`Cannot filter in the order "${filterOrder}": the orders are vllm and huggingface.`);
  }
  return { ...Object.fromEntries(numbers), logitBias, seed, filterOrder } as SamplingSettings;
}

/** Whether the most likely token is taken, whatever the random numbers are. */
export function isGreedy({ temperature }: SamplingSettings): boolean {
  return temperature < COLDEST;
}

/** Whether anything but the temperature stands between a token and its draw, so that some tokens cannot come. */
export function hasFilters({ topK, topP, minP }: SamplingSettings): boolean {
  return topK > 0 || topP < 1 || minP > 0;
}

/** A seed for who asks for none. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
