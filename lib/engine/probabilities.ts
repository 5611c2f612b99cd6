/** What sampling means, in double precision and without any haste: the reference for the sampler, and what charts draw. */

import { EDIT, SampledRow } from "./sampled_row.ts";
import { isGreedy, type SamplingSettings } from "./sampling.ts";

/**
 * The probability [V] with which each token comes next, given a row's logits [V], its settings, and the tokens so far. Order:
 * bias and banned tokens, penalties, temperature, then the filters as the settings say.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { probabilities } from "./probabilities.ts";
 * import { samplingSettings } from "./sampling.ts";
 *
 * const settings = samplingSettings({ temperature: 1, topK: 2 }, { vocabSize: 3 });
 * const [a, b, c] = probabilities([0.5, 0.3, 0.2].map(Math.log), settings);
 * assert.ok(Math.abs(a - 0.625) < 1e-9 && Math.abs(b - 0.375) < 1e-9 && c === 0);
 * ```
 */
export function probabilities(
  logits: ArrayLike<number>,
  settings: SamplingSettings,
  { prompt = [], answer = [], endIds = [] }: {
    prompt?: readonly number[];
    answer?: readonly number[];
    endIds?: readonly number[];
  } = {},
): Float64Array {
  const row = new SampledRow(settings, { prompt, endIds });
  for (const token of answer) row.add(token);
  const edited = editedLogits(logits, row);
  const descending = Array.from(edited.keys()).sort((a, b) => edited[b] - edited[a] || a - b);
  const result = new Float64Array(edited.length);
  if (isGreedy(settings)) {
    result[descending[0]] = 1;
    return result;
  }
  const largest = edited[descending[0]];
  const weights = descending.map((id) => Math.exp((edited[id] - largest) / settings.temperature));
  // Each filter keeps a number of the most likely tokens, so its answer is how many.
  const { topK, topP, minP, filterOrder } = settings;
  const byK = () => {
    if (topK === 0 || topK >= weights.length) return weights.length;
    return weights.findLastIndex((_, rank) => edited[descending[rank]] >= edited[descending[topK - 1]]) + 1;
  };
  const byMinP = () => weights.findLastIndex((weight) => weight >= minP) + 1;
  const byP = (kept: number) => {
    const share = topP * sum(weights.slice(0, kept));
    let before = 0, count = 0;
    while (count < kept && (count === 0 || topP === 1 || before < share)) before += weights[count++];
    return count;
  };
  const kept = filterOrder === "vllm" ? byP(Math.min(byMinP(), byK())) : Math.min(byP(byK()), byMinP());
  const total = sum(weights.slice(0, kept));
  for (let rank = 0; rank < kept; rank++) result[descending[rank]] = weights[rank] / total;
  return result;
}

/** A row's logits after bias, bans and penalties. */
function editedLogits(logits: ArrayLike<number>, { edits }: SampledRow): Float64Array {
  const edited = Float64Array.from(logits);
  for (let at = 0; at < edits.length; at += EDIT.size) {
    const token = edits[at + EDIT.token], repetition = edits[at + EDIT.repetition];
    const biased = edited[token] + edits[at + EDIT.add];
    edited[token] = (biased > 0 ? biased / repetition : biased * repetition) - edits[at + EDIT.subtract];
  }
  return edited;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0);
}
