/** What `--temperature` and the other flags for choosing tokens mean. */

import type { FilterOrder, SamplingOptions } from "../engine/sampling.ts";
import { type Flag, number, wholeNumber } from "./command.ts";

/** The flags that say how the next token is chosen. */
export const samplingFlags = {
  temperature: {
    type: "string",
    value: "T",
    help: "draw tokens by their probability, nearer to even with a higher T (default 0: take the most likely one)",
  },
  "top-k": { type: "string", value: "K", help: "draw from the K most likely tokens" },
  "top-p": { type: "string", value: "P", help: "draw from the most likely tokens that have P of the probability" },
  "min-p": { type: "string", value: "P", help: "draw from tokens at least P times as likely as the most likely one" },
  "filter-order": { type: "string", value: "NAME", help: "min-p comes first (vllm, default) or last (huggingface)" },
  "repetition-penalty": { type: "string", value: "R", help: "divides logits of tokens that were there (default 1)" },
  "presence-penalty": { type: "string", value: "R", help: "taken from logits of tokens in the answer (default 0)" },
  "frequency-penalty": { type: "string", value: "R", help: "the same, for each time they are there (default 0)" },
  "min-tokens": { type: "string", value: "N", help: "the fewest new tokens of each answer (default 0)" },
  seed: { type: "string", value: "N", help: "the same N gives the same draws (default: another one each time)" },
} as const satisfies Record<string, Flag>;

/** What the flags were set to. */
export type SamplingFlagValues = { [K in keyof typeof samplingFlags]?: string };

/** What the flags ask for. Throws a UsageError about a value that is no number; ranges are checked with the model. */
export function chosenSampling(flags: SamplingFlagValues): SamplingOptions {
  const value = (name: keyof SamplingFlagValues) => number(flags[name], name);
  return {
    temperature: value("temperature"),
    topK: value("top-k"),
    topP: value("top-p"),
    minP: value("min-p"),
    filterOrder: flags["filter-order"] as FilterOrder | undefined, // others are refused with the rest
    repetitionPenalty: value("repetition-penalty"),
    presencePenalty: value("presence-penalty"),
    frequencyPenalty: value("frequency-penalty"),
    minTokens: value("min-tokens"),
    seed: flags.seed === undefined ? undefined : wholeNumber(flags.seed, "seed", 0, 0),
  };
}
