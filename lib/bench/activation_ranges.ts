/**
 * Measures what the inputs of a model's linear layers range over, so that int8 can scale them by constants (static
 * quantization): what goes around each product then is one rounding, where each row's own range takes several operations.
 */

import * as tf from "@tensorflow/tfjs";
import type { ActivationRanges } from "../backend/int8.ts";
import type { Linear, Ops } from "../backend/ops.ts";
import { plainOps } from "../backend/plain.ts";
import type { Backend } from "../backend/types.ts";
import type { BuildOptions } from "../gpt2/load.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { generateBatch } from "../engine/generate.ts";
import { padBatch } from "../tokenizer/batch.ts";
import { median } from "../util/median.ts";
import { predict } from "./perplexity.ts";

/** The ranges, and what they cost. */
export interface MeasuredRanges {
  /** Of the layers that are to have constant ranges. */
  ranges: ActivationRanges;
  /** How many layers there are. */
  layers: number;
  /** How much of what went into the layers was cut off, on the half of the text that the ranges are not from. */
  clippedShare: number;
  /** Perplexity on all of the text, divided by that with each row's own ranges. */
  perplexityRatio: number;
  /** Tokens of the text. */
  tokens: number;
}

/** How much perplexity constant ranges may cost, as a share. */
const ALLOWED = 0.0025;

/** What is tried for all layers: ranges of so much of the largest magnitude. Finer steps for many may be worth a few cuts. */
const OF_LARGEST = [1, 0.9, 0.8];

/** Shares of the layers that are left with ranges of each row, until the perplexity is as it should be. */
const BY_ROW = [1 / 8, 1 / 4, 1 / 2];

/** The text that a model makes for this: so many answers to nothing, of so many tokens. */
const OWN_TEXT = { rows: 16, length: 128 };

/**
 * Measures on `rows` of tokens, an even number of the same length; by default on text that the model itself makes. `load`
 * loads the model with the backend and the ranges that it is given.
 *
 * A layer's range is most of the largest magnitude that one half of the text brings; how much of it, perplexity decides. Where
 * that costs too much, the layers whose largest row is the furthest from a usual one get no range: outliers of a few tokens
 * would take the steps of all others.
 */
export async function measureActivationRanges(
  load: (options: BuildOptions) => Promise<GPT2>,
  backend: Backend,
  rows?: readonly (readonly number[])[],
): Promise<MeasuredRanges> {
  const inputs = new Map<string, number[]>(); // by layer, the largest magnitude of each row that went in
  let limits: ActivationRanges = new Map(), clipped = 0, seen = 0;
  const watch = (layer: string, x: tf.Tensor2D) =>
    tf.tidy(() => {
      const sizes = tf.abs(x), limit = limits.get(layer);
      if (limit === undefined) {
        const own = inputs.get(layer) ?? [];
        for (const size of tf.max(sizes, 1).dataSync()) own.push(size);
        inputs.set(layer, own);
      } else {
        clipped += tf.sum(tf.cast(tf.greater(sizes, limit), "int32")).dataSync()[0];
        seen += x.size;
      }
    });
  rows ??= await withModel(load, { backend, activationRanges: new Map() }, ownText);
  const [half, rest] = [rows.slice(0, rows.length / 2), rows.slice(rows.length / 2)];
  const perplexity = async (activationRanges: ActivationRanges) =>
    await withModel(load, { backend, activationRanges }, async (model) => (await predict(model, rows)).perplexity);
  const watching = async (activationRanges: ActivationRanges, rows: readonly (readonly number[])[]) => {
    limits = activationRanges;
    await withModel(load, { backend: watched(backend, watch), activationRanges }, (model) => predict(model, rows));
  };

  await watching(new Map(), half);
  const steadiest = [...inputs].map(([layer, sizes]) => ({ layer, limit: largest(sizes), usual: median(sizes) }))
    .sort((a, b) => a.limit / a.usual - b.limit / b.usual);
  const rangesOf = (layers: typeof steadiest, share: number) =>
    new Map(layers.map(({ layer, limit }) => [layer, share * limit]));
  const byRow = await perplexity(new Map());
  const tried = [];
  for (const share of OF_LARGEST) {
    const ranges = rangesOf(steadiest, share);
    tried.push({ share, ranges, ratio: await perplexity(ranges) / byRow });
  }
  let best = tried.reduce((a, b) => b.ratio < a.ratio ? b : a);
  for (const left of BY_ROW) {
    if (best.ratio <= 1 + ALLOWED) break;
    const ranges = rangesOf(steadiest.slice(0, Math.floor((1 - left) * steadiest.length)), best.share);
    best = { share: best.share, ranges, ratio: await perplexity(ranges) / byRow };
  }
  if (best.ratio > 1 + ALLOWED) best = { share: 1, ranges: new Map(), ratio: 1 };
  await watching(best.ranges, rest);
  return {
    ranges: best.ranges,
    layers: steadiest.length,
    clippedShare: seen ? clipped / seen : 0,
    perplexityRatio: best.ratio,
    tokens: rows.length * rows[0].length,
  };
}

async function withModel<T>(
  load: (options: BuildOptions) => Promise<GPT2>,
  options: BuildOptions,
  use: (model: GPT2) => Promise<T>,
): Promise<T> {
  using model = await load({ ...options, dtype: "int8" });
  return await use(model);
}

/** What a model says when it is asked nothing, drawn from its own probabilities. */
async function ownText(model: GPT2): Promise<number[][]> {
  const { eos_token_id, n_positions } = model.config, start = eos_token_id ?? 0;
  const length = Math.min(OWN_TEXT.length, n_positions);
  const answers = await generateBatch(model, padBatch([[start]], { padTokenId: start }), {
    ...{ n: OWN_TEXT.rows, maxTokens: length - 1, ignoreEos: true },
    ...{ temperature: 1, seed: 1 },
  });
  return answers.map(({ tokens }) => [start, ...tokens]);
}

/** A backend that shows `watch` what goes into each linear layer. Nothing is captured, so that there is something to see. */
function watched(backend: Backend, watch: (layer: string, x: tf.Tensor2D) => void): Backend {
  const watchedLayer = <L extends Pick<Linear, "dispose"> & { apply(x: tf.Tensor2D): unknown }>(
    name: string,
    layer: L,
  ): L =>
    ({
      apply(x: tf.Tensor2D) {
        watch(name, x);
        return layer.apply(x);
      },
      dispose: () => layer.dispose(),
    }) as L;
  const { ops } = backend;
  const changed: Ops = {
    ...ops,
    linear: (weight, bias, options) => watchedLayer(options.name, ops.linear(weight, bias, options)),
    head: (wte, options) => watchedLayer(options.name, ops.head(wte, options)),
    int8Linear: (weight, bias, options) => watchedLayer(options.name, ops.int8Linear!(weight, bias, options)),
    int8Head: (wte, options) => watchedLayer(options.name, ops.int8Head!(wte, options)),
    chain: plainOps.chain,
  };
  return { ...backend, ops: changed, capture: undefined };
}

/** The largest of some numbers; at least one that can be divided by. */
function largest(values: readonly number[]): number {
  return values.reduce((a, b) => Math.max(a, b), 1e-12);
}
