/** Rows to sample, and whether what came is what their random numbers ask for. */

import * as tf from "@tensorflow/tfjs";
import type { Backend } from "../../lib/backend/types.ts";
import type { SamplingOps } from "../../lib/backend/sampling.ts";
import { plainSamplingOps } from "../../lib/backend/plain_sampling.ts";
import { probabilities } from "../../lib/engine/probabilities.ts";
import { SampledRow } from "../../lib/engine/sampled_row.ts";
import {
  hasFilters,
  isGreedy,
  type SamplingOptions,
  type SamplingSettings,
  samplingSettings,
} from "../../lib/engine/sampling.ts";
import { tensorflowSamplingOps } from "../../lib/tensorflow/sampling.ts";
import { openTensorflow } from "../../lib/tensorflow/tfjs/backend.ts";
import { seededNormal, seededRandom } from "../../lib/util/random.ts";

/** A row with all that its next token depends on. */
export interface TestRow {
  options: SamplingOptions;
  prompt: number[];
  answer: number[];
  endIds: number[];
  logits: Float32Array;
}

/** What the sampler needs on a backend. */
export async function samplingOpsOf({ name }: Pick<Backend, "name">): Promise<SamplingOps> {
  return ["tensorflow", "onednn"].includes(name) ? tensorflowSamplingOps(await openTensorflow()) : plainSamplingOps;
}

/** The row's settings, complete. */
export function settingsOf({ options, logits }: TestRow): SamplingSettings {
  return samplingSettings(options, { vocabSize: logits.length });
}

/** The row as the sampler wants it. `choice` is which of the answers it is. */
export function sampledRow(test: TestRow, choice = 0, settings = settingsOf(test)): SampledRow {
  const { prompt, answer, endIds } = test;
  const row = new SampledRow(settings, { prompt, choice, endIds });
  for (const token of answer) row.add(token);
  return row;
}

/** Logits [B, V] of rows, in parts as unequal as they may be. */
export function logitParts(rows: readonly TestRow[], parts: number): tf.Tensor2D[] {
  const V = rows[0].logits.length;
  const all = new Float32Array(rows.length * V);
  for (const [i, { logits }] of rows.entries()) all.set(logits, i * V);
  return tf.tidy(() => {
    const whole = tf.tensor2d(all, [rows.length, V]), first = Math.floor(0.4 * V);
    if (parts === 1) return [whole];
    return [tf.slice(whole, [0, 0], [-1, first]), tf.slice(whole, [0, first], [-1, V - first])];
  });
}

/** Rows of all kinds: every setting on some of them, in all combinations. */
export function randomRows(seed: number, count: number, vocabSize: number): TestRow[] {
  const random = seededRandom(seed), normal = seededNormal(seed + 1);
  const upTo = (n: number) => Math.floor(random() * n), token = () => upTo(vocabSize);
  const sometimes = <K extends keyof SamplingOptions>(name: K, share: number, value: () => SamplingOptions[K]) =>
    random() < share ? { [name]: value() } : {};
  return Array.from({ length: count }, () => {
    const spread = 0.5 + 4 * random();
    return {
      logits: Float32Array.from({ length: vocabSize }, () => spread * normal() - 10 * spread),
      prompt: Array.from({ length: upTo(30) }, token),
      answer: Array.from({ length: upTo(10) }, token),
      endIds: [token(), token()],
      options: {
        seed: upTo(2 ** 32),
        temperature: 0.2 + 1.8 * random(),
        ...sometimes("temperature", 0.1, () => 0),
        ...sometimes("topK", 0.3, () => 1 + upTo(100)),
        ...sometimes("topP", 0.4, random),
        ...sometimes("minP", 0.2, () => 0.2 * random()),
        ...sometimes("repetitionPenalty", 0.3, () => 0.7 + random()),
        ...sometimes("presencePenalty", 0.2, () => 4 * random() - 2),
        ...sometimes("frequencyPenalty", 0.2, () => 4 * random() - 2),
        ...sometimes("logitBias", 0.2, () => ({ [token()]: 20 * random() - 10, [token()]: -100 })),
        ...sometimes("minTokens", 0.3, () => upTo(20)),
        ...sometimes("filterOrder", 0.3, () => "huggingface"),
      },
    };
  });
}

/** The order in which a row's cumulative distribution goes through its tokens. */
function drawOrder(likely: Float64Array, settings: SamplingSettings): number[] {
  const ids = Array.from(likely.keys());
  return hasFilters(settings) ? ids.sort((a, b) => likely[b] - likely[a] || a - b) : ids;
}

/**
 * How far the row's random number lies outside of the interval that belongs to `id` in double precision: 0 if inside, and
 * infinitely far if `id` cannot come at all.
 */
export function missedBy(id: number, row: TestRow, uniform = sampledRow(row).uniform): number {
  const settings = settingsOf(row), likely = probabilities(row.logits, settings, row);
  if (!(likely[id] > 0)) return Infinity;
  if (isGreedy(settings)) return 0;
  let before = 0;
  for (const other of drawOrder(likely, settings)) {
    if (other === id) break;
    before += likely[other];
  }
  return Math.max(0, before - uniform, uniform - before - likely[id]);
}
