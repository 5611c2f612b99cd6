/** From rows on the host to what the sampler takes on the device. */

import { SETTING, UNLIMITED } from "../backend/sampling.ts";
import { EDIT, type SampledRow } from "./sampled_row.ts";
import { hasFilters, isGreedy } from "./sampling.ts";

/** The numbers of a batch, to be made tensors of. */
export interface SamplerInputs {
  /** [B, 7]. */
  settings: Float32Array<ArrayBuffer>;
  /** [E, 5]; E is a power of two, so that few shapes occur. */
  edits: Float32Array<ArrayBuffer>;
}

/** So cold that logits next to each other have weights that differ. */
const COLD = 1 / 64;

/** A share so small that top-p keeps the most likely token only. */
const ONE_TOKEN = 1e-9;

/** The sampler's inputs for the next token of each row. */
export function samplerInputs(rows: readonly SampledRow[]): SamplerInputs {
  const settings = new Float32Array(rows.length * SETTING.count);
  for (const [i, row] of rows.entries()) settings.set(settingsOf(row), i * SETTING.count);
  const count = rows.reduce((sum, { editCount }) => sum + editCount, 0);
  const edits = new Float32Array(2 ** Math.ceil(Math.log2(Math.max(1, count))) * EDIT.size);
  let end = 0;
  for (const [i, row] of rows.entries()) {
    edits.set(row.edits, end);
    const start = end;
    end += row.edits.length;
    for (let at = start; at < end; at += EDIT.size) edits[at + EDIT.row] = i;
  }
  for (let at = end; at < edits.length; at += EDIT.size) edits.set([0, -1, 0, 1, 0], at); // no token
  return { settings, edits };
}

/** In the order of {@link SETTING}. */
function settingsOf({ settings, uniform }: SampledRow): number[] {
  const { temperature, topK, topP, minP, filterOrder } = settings;
  if (isGreedy(settings)) return [COLD, 0, UNLIMITED, ONE_TOKEN, 0, 0, 1];
  return [
    temperature,
    uniform,
    topK > 0 && topK < UNLIMITED ? topK : UNLIMITED,
    topP < 1 ? Math.max(topP, ONE_TOKEN) : 2,
    filterOrder === "vllm" ? minP : 0,
    filterOrder === "vllm" ? 0 : minP,
    hasFilters(settings) ? 1 : 0,
  ];
}
