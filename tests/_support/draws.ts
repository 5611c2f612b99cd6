/** Whether answers are what their seeds ask for, draw by draw. */

import assert from "node:assert/strict";
import { probabilities } from "../../lib/engine/probabilities.ts";
import type { AnswerOptions, Generated } from "../../lib/engine/request.ts";
import { hasFilters, isGreedy } from "../../lib/engine/sampling.ts";
import type { GPT2 } from "../../lib/gpt2/model.ts";
import { logitsAlone } from "./logits.ts";
import { missedBy, sampledRow, settingsOf, type TestRow } from "./sampling.ts";

/**
 * Fails unless each token of an answer is what its draw asks for, by the logits that the text before it gets alone. Gives the
 * number of ties: tokens that only logits which differ by `tolerance` would ask for.
 */
export async function assertDrawn(
  model: GPT2,
  prompt: readonly number[],
  options: Partial<AnswerOptions>,
  { tokens }: Generated,
  tolerance = 1e-3,
): Promise<number> {
  const { stopIds = [], ignoreEos } = options, { eos_token_id } = model.config;
  const endIds = [...ignoreEos || eos_token_id === null ? [] : [eos_token_id], ...stopIds];
  const logits = await logitsAlone(model, tokens.map((_, i) => [...prompt, ...tokens.slice(0, i)]));
  let ties = 0;
  for (const [i, token] of tokens.entries()) {
    const row = {
      options,
      prompt: [...prompt],
      answer: tokens.slice(0, i),
      endIds,
      logits: new Float32Array(logits[i]),
    };
    if (missedBy(token, row) === 0) continue;
    assert.ok(isTie(token, row, tolerance), `token ${i} is ${token}, which the draw does not ask for`);
    ties++;
  }
  return ties;
}

/** Whether logits that are off by `tolerance` may give this token: the draw, or the end of a filter, is that near to an edge. */
function isTie(id: number, row: TestRow, tolerance: number): boolean {
  const settings = settingsOf(row), { topK, topP, minP, temperature } = settings;
  const open = probabilities(
    row.logits,
    { ...settings, topK: 0, topP: 1, minP: 0, temperature: temperature || 1 },
    row,
  );
  const falling = open.toSorted().reverse(), near = (a: number, b: number) => Math.log(a / b) <= 2 * tolerance;
  if (isGreedy(settings)) return near(falling[0], open[id]);
  if (!hasFilters(settings)) return missedBy(id, row) <= tolerance;
  const ks = topK
    ? falling.keys().map((i) => i + 1).filter((k) =>
      near(falling[Math.min(k, topK) - 1], falling[Math.max(k, topK) - 1])
    )
    : [0];
  const { uniform } = sampledRow(row);
  return [...ks].some((topK) =>
    [-tolerance, 0, tolerance].some((off) => {
      const options = { ...row.options, topK, topP: topP < 1 ? Math.min(1, topP + off) : 1, minP: minP * (1 + off) };
      return missedBy(id, { ...row, options }, uniform) <= tolerance;
    })
  );
}
