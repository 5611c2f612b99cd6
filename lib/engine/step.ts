/** One step of a batch: T tokens of every row go in, the next token of every row comes out. */

import * as tf from "@tensorflow/tfjs";
import type { CapturedStep } from "../backend/types.ts";
import { CacheView } from "../gpt2/cache_view.ts";
import type { KvCache, Lane } from "./kv_cache.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { fromTensors, halves, toTensors } from "./step_tensors.ts";

/** What a step chose for each row. */
export interface NextTokens {
  /** [B]: the most likely token. */
  ids: number[];
  /** [B]: the natural logarithm of its probability, if asked for. */
  logprobs?: number[];
}

/** How a step is done. */
export interface StepOptions {
  /** Also compute log-probabilities: a pass over all B × V logits. */
  logprobs?: boolean;
}

/**
 * Feeds `tokens` [B, T] after what `cache` holds, appends their keys and values to it, and chooses each row's next token.
 *
 * Where the backend can, the step is captured when it first occurs and replayed from then on: once for single tokens and
 * once for longer stretches, whatever the batch size and the length of the cache. The lanes of the cache run side by side.
 */
export async function step(
  model: GPT2,
  cache: KvCache,
  tokens: readonly (readonly number[])[],
  options: StepOptions = {},
): Promise<NextTokens> {
  using _model = model.lifetime.use(), _cache = cache.lifetime.use();
  const count = tokens[0].length;
  cache.reserve(count);
  const lanes = await Promise.all(
    cache.lanes.map((lane) => laneStep(model, cache, lane, lane.rowsOf(tokens), options)),
  );
  cache.length += count;
  return {
    ids: lanes.flatMap(({ ids }) => ids),
    ...options.logprobs && { logprobs: lanes.flatMap(({ logprobs }) => logprobs!) },
  };
}

async function laneStep(
  model: GPT2,
  cache: KvCache,
  lane: Lane,
  tokens: readonly (readonly number[])[],
  options: StepOptions,
): Promise<NextTokens> {
  const { ops, capture } = model.backend, inputs = toTensors(ops, lane, cache.length, tokens);
  try {
    const outputs = capture
      ? await capturedStep(model, inputs.all, tokens, options).run(inputs.all, cache.parallelism)
      : tf.tidy(() => forwardFrom(model, inputs.all, options));
    const written = outputs.splice(options.logprobs ? 2 : 1) as tf.Tensor4D[];
    if (written.length) lane.adopt(halves(written));
    const [ids, logprobs] = await Promise.all(outputs.map(async (output) => Array.from(await output.data())));
    tf.dispose(outputs);
    return { ids, logprobs };
  } finally {
    tf.dispose(inputs.own);
  }
}

/**
 * The model on T tokens of each row, and the choice of the next: ids [B], and log-probabilities [B] if asked for; then,
 * where the backend does not write in place, the new keys and values of each layer.
 */
function forwardFrom(model: GPT2, tensors: readonly tf.Tensor[], { logprobs }: StepOptions): tf.Tensor[] {
  const { ops } = model.backend, inputs = fromTensors(ops, tensors, model.config.n_layer);
  const view = new CacheView(ops, inputs.cache, inputs.newSlots);
  const { keys, values } = view.written;
  try {
    const logits = model.forward(inputs.tokens, inputs.positions, view); // [B, V]
    const ids = ops.argMax(logits);
    return logprobs ? [ids, ops.maxLogprob(logits), ...keys, ...values] : [ids, ...keys, ...values];
  } catch (error) {
    tf.dispose([...keys, ...values]); // they are kept
    throw error;
  }
}

/** A decode step of a cache with one lane, as a function of tensors: for those who want to look into it. */
export function decodeStepOf(model: GPT2, cache: KvCache, tokens: readonly (readonly number[])[]): {
  inputs: tf.Tensor[];
  build: (standIns: readonly tf.Tensor[]) => tf.Tensor[];
  dispose: () => void;
} {
  const inputs = toTensors(model.backend.ops, cache.lanes[0], cache.length, tokens);
  return {
    inputs: inputs.all,
    build: (standIns) => forwardFrom(model, standIns, {}),
    dispose: () => tf.dispose(inputs.own),
  };
}

function capturedStep(
  model: GPT2,
  inputs: readonly tf.Tensor[],
  tokens: readonly (readonly number[])[],
  options: StepOptions,
): CapturedStep {
  const { backend, capturedSteps } = model, B = tokens.length, T = tokens[0].length;
  const decodes = T === 1;
  const kind = [decodes ? "decode" : "prefill", backend.sizeClass?.(B * T), options.logprobs].join();
  let captured = capturedSteps.get(kind);
  if (!captured) {
    captured = backend.capture!(inputs, (standIns) => forwardFrom(model, standIns, options), {
      repeated: decodes,
    });
    capturedSteps.set(kind, captured);
  }
  return captured;
}
