/**
 * Measures what the inputs of a model's linear layers range over, so that int8 can scale them by constants (static
 * quantization): what goes around each product then is one rounding, where each row's own range takes several operations.
 */

import * as tf from "@tensorflow/tfjs";
import type { ActivationRange, ActivationRanges } from "../backend/int8.ts";
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
  /** With ranges of one half of the text: in how many of the vectors that went into the layers in the other half one cuts something off. */
  clippedShare: number;
  /** Perplexity on the text, divided by that with each row's own ranges. */
  perplexityRatio: number;
  /** Tokens of the text. */
  tokens: number;
}

/** How much perplexity constant ranges may cost, as a share, on the text that they are from. */
const ALLOWED = 0.004;

/** Shares of the layers that are left with ranges of each row, until the perplexity is as it should be. */
const BY_ROW = [1 / 8, 1 / 4, 1 / 2];

/** The text that a model makes for this: so many answers to nothing, of so many tokens. */
const OWN_TEXT = { rows: 16, length: 128 };

/**
 * Measures on `rows` of tokens, an even number of the same length; by default on text that the model itself makes. `load`
 * loads the model with the backend and the ranges that it is given.
 *
 * A layer's range is all that the text brings: narrower ones are finer, and were better on the text itself but worse on others.
 * Where constants cost too much, the layers whose largest row is the furthest from a usual one get none: outliers of a few
 * tokens would take the steps of all others.
 */
export async function measureActivationRanges(
  load: (options: BuildOptions) => Promise<GPT2>,
  backend: Backend,
  rows?: readonly (readonly number[])[],
): Promise<MeasuredRanges> {
  const text = rows ?? await withModel(load, { backend, activationRanges: new Map() }, ownText);
  const { perplexity: byRow, halves } = await watchHalves(load, backend, text);
  const [first, second] = halves, layers = [...first.keys()];
  const ofHalf = new Map(layers.map((layer) => [layer, hull(first.get(layer)!)]));
  const steadiest = layers.map((layer) => {
    const vectors = [...first.get(layer)!, ...second.get(layer)!], range = hull(vectors);
    return { layer, range, unsteadiness: magnitude(range) / median(vectors.map(magnitude)) };
  }).sort((a, b) => a.unsteadiness - b.unsteadiness);

  let ranges: ActivationRanges = new Map(), perplexityRatio = 1;
  for (const left of [0, ...BY_ROW]) {
    const kept = steadiest.slice(0, Math.floor((1 - left) * layers.length));
    const tried = new Map(kept.map(({ layer, range }) => [layer, range]));
    const predicted = await withModel(load, { backend, activationRanges: tried }, (model) => predict(model, text));
    const ratio = predicted.perplexity / byRow;
    if (ratio > 1 + ALLOWED) continue;
    [ranges, perplexityRatio] = [tried, ratio];
    break;
  }
  const vectors = [...ranges.keys()].flatMap((layer) => second.get(layer)!.map((vector) => ({ layer, vector })));
  const clipped = vectors.filter(({ layer, vector: [low, high] }) => {
    const range = ofHalf.get(layer)!;
    return low < range[0] || high > range[1];
  });
  return {
    ranges,
    layers: layers.length,
    clippedShare: vectors.length ? clipped.length / vectors.length : 0,
    perplexityRatio,
    tokens: text.length * text[0].length,
  };
}

/** For each half of a text: by layer, what each vector that goes in ranges over; and the perplexity on both, without constant ranges. */
async function watchHalves(
  load: (options: BuildOptions) => Promise<GPT2>,
  backend: Backend,
  text: readonly (readonly number[])[],
) {
  const halves: Map<string, ActivationRange[]>[] = [];
  const watch = (layer: string, x: tf.Tensor2D) =>
    tf.tidy(() => {
      const half = halves.at(-1)!, vectors = half.get(layer) ?? [], high = tf.max(x, 1).dataSync();
      for (const [row, low] of tf.min(x, 1).dataSync().entries()) {
        vectors.push([Math.min(low, 0), Math.max(high[row], 0)]);
      }
      half.set(layer, vectors);
    });
  let surprise = 0;
  await withModel(
    load,
    { backend: watched(await backend.oneByOne?.() ?? backend, watch), activationRanges: new Map() },
    async (model) => {
      for (const rows of [text.slice(0, text.length / 2), text.slice(text.length / 2)]) {
        halves.push(new Map());
        surprise += Math.log((await predict(model, rows)).perplexity) / 2;
      }
    },
  );
  return { perplexity: Math.exp(surprise), halves };
}

/** What some ranges cover together; it has a width. */
function hull(ranges: readonly ActivationRange[]): ActivationRange {
  return ranges.reduce(([low, high], range) => [Math.min(low, range[0]), Math.max(high, range[1])], [-1e-12, 1e-12]);
}

/** The largest magnitude in a range. */
function magnitude([low, high]: ActivationRange): number {
  return Math.max(-low, high, 1e-12);
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
