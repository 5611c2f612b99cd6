/** One step of a batch: T tokens of every row go in, the next token of every row comes out. */

import * as tf from "@tensorflow/tfjs";
import type { CapturedStep } from "./backend.ts";
import { type CacheTensors, CacheView } from "./gpt2/cache_view.ts";
import type { KvCache, Lane } from "./gpt2/kv_cache.ts";
import type { GPT2 } from "./gpt2/model.ts";

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
  const inputs = toTensors(lane, cache.length, tokens);
  try {
    const outputs = model.backend.capture
      ? await capturedStep(model, inputs, options).run(flatten(inputs), cache.parallelism)
      : tf.tidy(() => forwardAndChoose(model, inputs, options));
    const written = outputs.splice(options.logprobs ? 2 : 1) as tf.Tensor4D[];
    if (written.length) lane.adopt(halves(written));
    const [ids, logprobs] = await Promise.all(outputs.map(async (output) => Array.from(await output.data())));
    tf.dispose(outputs);
    return { ids, logprobs };
  } finally {
    tf.dispose([inputs.tokens, inputs.positions, inputs.slots]); // the rest is the cache's
  }
}

/** A step's tensors. */
interface StepInputs {
  /** int [B, T]. */
  tokens: tf.Tensor2D;
  /** int [B, T]. */
  positions: tf.Tensor2D;
  /** int [T, 1]: where in the cache the tokens go. */
  slots: tf.Tensor2D;
  cache: CacheTensors;
}

/**
 * The model on T tokens of each row, and the choice of the next: ids [B], and log-probabilities [B] if asked for; then,
 * where the backend does not write in place, the new keys and values of each layer.
 */
function forwardAndChoose(model: GPT2, inputs: StepInputs, { logprobs }: StepOptions): tf.Tensor[] {
  const { ops } = model.backend, view = new CacheView(ops, inputs.cache, inputs.slots);
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

function halves([...written]: tf.Tensor4D[]): Pick<CacheTensors, "keys" | "values"> {
  const keys = written.splice(0, written.length / 2);
  return { keys, values: written };
}

/** A decode step of a cache with one lane, as a function of tensors: for those who want to look into it. */
export function decodeStepOf(model: GPT2, cache: KvCache, tokens: readonly (readonly number[])[]): {
  inputs: tf.Tensor[];
  build: (standIns: readonly tf.Tensor[]) => tf.Tensor[];
  dispose: () => void;
} {
  const inputs = toTensors(cache.lanes[0], cache.length, tokens);
  return {
    inputs: flatten(inputs),
    build: (standIns) => forwardFrom(model, standIns, {}),
    dispose: () => tf.dispose([inputs.tokens, inputs.positions, inputs.slots]), // the rest is the cache's
  };
}

function forwardFrom(model: GPT2, standIns: readonly tf.Tensor[], options: StepOptions): tf.Tensor[] {
  return forwardAndChoose(model, unflatten(standIns, model.config.n_layer), options);
}

function capturedStep(model: GPT2, inputs: StepInputs, options: StepOptions): CapturedStep {
  const { backend, capturedSteps } = model;
  const decodes = inputs.tokens.shape[1] === 1;
  const kind = [decodes ? "decode" : "prefill", backend.sizeClass?.(inputs.tokens.size), options.logprobs].join();
  let captured = capturedSteps.get(kind);
  if (!captured) {
    captured = backend.capture!(flatten(inputs), (standIns) => forwardFrom(model, standIns, options), {
      repeated: decodes,
    });
    capturedSteps.set(kind, captured);
  }
  return captured;
}

function toTensors(lane: Lane, first: number, tokens: readonly (readonly number[])[]): StepInputs {
  const B = tokens.length, T = tokens[0].length;
  return {
    tokens: tf.tensor2d(tokens.flat(), [B, T], "int32"),
    positions: tf.tensor2d(lane.positionIds(first, T).flat(), [B, T], "int32"),
    slots: tf.tensor2d(Array.from({ length: T }, (_, i) => first + i), [T, 1], "int32"),
    cache: lane.tensors,
  };
}

/** A captured step takes its tensors in a row; `unflatten` undoes this. */
function flatten({ tokens, positions, slots, cache }: StepInputs): tf.Tensor[] {
  return [tokens, positions, slots, cache.padding, cache.slots, ...cache.rowStarts, ...cache.keys, ...cache.values];
}

function unflatten(tensors: readonly tf.Tensor[], layers: number): StepInputs {
  const [tokens, positions, slots, padding, cacheSlots, ...rest] = tensors;
  const groups = rest.length / (1 + 2 * layers), values = groups * (1 + layers);
  return {
    tokens: tokens as tf.Tensor2D,
    positions: positions as tf.Tensor2D,
    slots: slots as tf.Tensor2D,
    cache: {
      padding: padding as tf.Tensor4D,
      slots: cacheSlots as tf.Tensor1D,
      rowStarts: rest.slice(0, groups) as tf.Tensor3D[],
      keys: rest.slice(groups, values) as tf.Tensor4D[],
      values: rest.slice(values) as tf.Tensor4D[],
    },
  };
}
