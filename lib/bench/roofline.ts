/**
 * The roofline: what this machine could do at most, and how much of that a step of the model uses.
 *
 * A decode step must read every weight and the cache once, whatever the batch size, and do about two operations per weight
 * for each row. Small batches wait for memory, large ones for arithmetic (Williams et al. 2009).
 */

import * as tf from "@tensorflow/tfjs";
import { onBackend } from "../backend/current.ts";
import type { Backend, Parallelism, Roofs } from "../backend/types.ts";
import type { GPT2Config } from "../gpt2/config.ts";
import { checkParallelism } from "../engine/limits.ts";
import { type Range, ranges } from "../util/ranges.ts";
import { BYTES_PER_WEIGHT, type Dtype, type Linear } from "../backend/ops.ts";

const FLOAT_BYTES = Float32Array.BYTES_PER_ELEMENT;

/** What one decode step of a batch has to do. */
export interface StepCost {
  /** Bytes read: the weights, and the keys and values of all slots. */
  bytes: number;
  /** Operations; a multiplication and an addition are two. */
  flops: number;
}

/** One part of a decode step. */
export interface StepPart extends StepCost {
  /** The checkpoint's name for it, `KV cache`, or `embeddings`. */
  name: string;
  /** For a linear layer its shape, and how many of them there are. */
  linear?: { inputs: number; outputs: number; count: number };
}

/**
 * What a decode step is made of, when one token of each of `batchSize` rows is fed and `slots` slots of the cache are
 * attended to: the linear layers by kind, the head, the cache, whose numbers take so many bytes each (see
 * {@link GPT2.cachedBytes}), and the rows of the embeddings that are looked up.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { decodeStepParts, gpt2Config } from "../mod.ts";
 *
 * const [attention] = decodeStepParts(gpt2Config("gpt2"), "bfloat16", 8, 16);
 * assert.deepEqual(attention.linear, { inputs: 768, outputs: 3 * 768, count: 12 });
 * assert.equal(attention.flops, 8 * 2 * 12 * (768 + 1) * 3 * 768);
 * ```
 */
export function decodeStepParts(
  config: GPT2Config,
  dtype: Dtype,
  batchSize: number,
  slots: number,
  cachedBytes = FLOAT_BYTES,
): StepPart[] {
  const { n_layer, n_embd, n_inner, vocab_size } = config;
  const linear = (name: string, inputs: number, outputs: number, count = n_layer, bias = 1): StepPart => {
    const weights = count * (inputs + bias) * outputs;
    return {
      name,
      bytes: weights * BYTES_PER_WEIGHT[dtype],
      flops: batchSize * 2 * weights,
      linear: { inputs, outputs, count },
    };
  };
  const cached = 2 * n_layer * batchSize * slots * n_embd; // keys and values
  return [
    linear("attn.c_attn", n_embd, 3 * n_embd),
    linear("attn.c_proj", n_embd, n_embd),
    linear("mlp.c_fc", n_embd, n_inner),
    linear("mlp.c_proj", n_inner, n_embd),
    linear("head", n_embd, vocab_size, 1, 0),
    { name: "KV cache", bytes: cached * cachedBytes, flops: 2 * cached },
    { name: "embeddings", bytes: 2 * batchSize * n_embd * FLOAT_BYTES, flops: batchSize * n_embd },
  ];
}

/**
 * The cost of feeding one token of each of `batchSize` rows, when `slots` slots of the cache are attended to: the sum of
 * {@link decodeStepParts}.
 *
 * @example
 * ```ts
 * import { decodeStepCost, gpt2Config } from "../mod.ts";
 *
 * const { bytes, flops } = decodeStepCost(gpt2Config("gpt2"), "float32", 1, 16);
 * console.log(flops / bytes); // about 0.5: one weight is four bytes and two operations
 * ```
 */
export function decodeStepCost(...step: Parameters<typeof decodeStepParts>): StepCost {
  const parts = decodeStepParts(...step);
  const sum = (key: keyof StepCost) => parts.reduce((total, part) => total + part[key], 0);
  return { bytes: sum("bytes"), flops: sum("flops") };
}

/**
 * The least seconds that a cost takes under these roofs: the reading or the arithmetic, whichever is longer.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { rooflineSeconds } from "../mod.ts";
 *
 * const roofs = { bandwidth: 30e9, flops: 400e9 };
 * assert.equal(rooflineSeconds({ bytes: 60e9, flops: 100e9 }, roofs), 2); // the reading takes longer
 * ```
 */
export function rooflineSeconds({ bytes, flops }: StepCost, roofs: Roofs): number {
  return Math.max(bytes / roofs.bandwidth, flops / roofs.flops);
}

/**
 * The batch size at which a decode step's arithmetic takes as long as its reading: up to there, more rows ride free.
 * Infinity if every row brings more to read than to compute, as with a long cache.
 *
 * @example
 * ```ts
 * import { gpt2Config, kneeBatchSize } from "../mod.ts";
 *
 * const roofs = { bandwidth: 30e9, flops: 400e9 };
 * console.log(kneeBatchSize(gpt2Config("gpt2"), "float32", 16, roofs)); // about 28
 * console.log(kneeBatchSize(gpt2Config("gpt2"), "float32", 1000, roofs)); // Infinity
 * ```
 */
export function kneeBatchSize(config: GPT2Config, dtype: Dtype, slots: number, roofs: Roofs): number {
  const none = decodeStepCost(config, dtype, 0, slots), one = decodeStepCost(config, dtype, 1, slots);
  const freeSeconds = none.bytes / roofs.bandwidth; // all rows share this
  const perRow = one.flops / roofs.flops - (one.bytes - none.bytes) / roofs.bandwidth;
  return perRow > 0 ? freeSeconds / perRow : Infinity;
}

/** How to measure. */
export interface MeasureOptions {
  /** Element type of the weights. Default `float32`. */
  dtype?: Dtype;
  /** Threads, and side by side in how many lanes, of which no more are used than there are rows. Default: all threads, one lane. */
  parallelism?: Parallelism;
  /** Runs, of which the fastest counts. Default 8. */
  runs?: number;
}

/**
 * Measures both roofs on a backend, in its own way where it has one, else in a few seconds: the reading of arrays much larger than most caches, and large matrix
 * multiplications in the way in which a linear layer of this dtype computes them. Of several sizes the best counts, because a
 * roof is what the machine can do. All grow until the call itself counts for little, which on a GPU takes gigabytes.
 *
 * @example
 * ```ts
 * import { measureRoofs, useBackend } from "../mod.ts";
 *
 * const { bandwidth, flops } = await measureRoofs(await useBackend());
 * console.log(bandwidth / 1e9, "GB/s,", flops / 1e9, "billion operations per second");
 * ```
 */
export async function measureRoofs(backend: Backend, options: MeasureOptions = {}): Promise<Roofs> {
  if (backend.measureRoofs) return await backend.measureRoofs(options.dtype ?? "float32");
  let bandwidth = 0, flops = 0, quickest = LARGE[0];
  for (const megabytes of [256, 512]) {
    bandwidth = Math.max(
      bandwidth,
      await rateOf(megabytes * 2 ** 20, (bytes) => timeReading(backend, bytes, options), 2),
    );
  }
  const rate = (layers: Required<LinearShape>, runs = options.runs) => {
    const { rows, inputs, outputs, count } = layers, least = operationsOf(layers);
    return rateOf(least, (operations) => {
      const scale = Math.round(Math.cbrt(operations / least)); // of each side
      const shape = { rows: rows * scale, inputs: inputs * scale, outputs: outputs * scale, count };
      return timeLinear(backend, shape, { ...options, runs });
    });
  };
  const small = await rate(SMALL, 2), largest = Math.max(...LARGE.map(operationsOf));
  if (largest / small > 1) return { bandwidth, flops: small }; // more than a second: a backend that calls cost nothing
  for (const shape of LARGE) { // a look at each
    const found = await rate(shape, 2);
    if (found > flops) [flops, quickest] = [found, shape];
  }
  return { bandwidth, flops: Math.max(flops, await rate(quickest)) };
}

/** Which of these is quickest depends on the dtype and on the processor: a square, and layers as models have them. */
const LARGE: readonly Required<LinearShape>[] = [
  { rows: 1536, inputs: 1536, outputs: 1536, count: 1 },
  { rows: 512, inputs: 768, outputs: 3072, count: 4 },
  { rows: 1024, inputs: 1024, outputs: 4096, count: 2 },
];

/** What tells quick backends from slow ones, which need no more to be measured. */
const SMALL: Required<LinearShape> = { rows: 256, inputs: 256, outputs: 256, count: 1 };

function operationsOf({ rows, inputs, outputs, count }: Required<LinearShape>): number {
  return 2 * rows * inputs * outputs * count;
}

/** How much is done per second, of an amount that grows `growth`-fold until it takes four milliseconds: then the call itself counts for little. */
async function rateOf(amount: number, seconds: (amount: number) => Promise<number>, growth = 8): Promise<number> {
  let taken = await seconds(amount);
  while (taken < 4e-3) taken = await seconds(amount *= growth);
  return amount / taken;
}

/**
 * The seconds that it takes to read an array of `bytes` bytes from memory, and sum it up.
 *
 * @example
 * ```ts
 * import { timeReading, useBackend } from "../mod.ts";
 *
 * const bytes = 2 ** 26;
 * console.log(bytes / await timeReading(await useBackend(), bytes) / 1e9, "GB/s");
 * ```
 */
export async function timeReading(
  backend: Backend,
  bytes: number,
  { parallelism = allThreads(backend), runs = 8 }: MeasureOptions = {},
): Promise<number> {
  checkTimesOperations(backend);
  checkParallelism(parallelism);
  const { threads } = parallelism, rows = 64; // enough for a backend that shares out rows
  const columns = Math.max(1, Math.round(bytes / 4 / rows / threads));
  const part = () => tf.fill([rows, columns], 1);
  const parts = onBackend(backend, () => Array.from({ length: threads }, part)); // one for each thread
  try {
    const sums = (parts: tf.Tensor[]) => tf.stack(parts.map((part) => tf.sum(part, 1)));
    return await fastest(backend, [parts], sums, { lanes: 1, threads }, runs);
  } finally {
    tf.dispose(parts);
  }
}

/** Linear layers of one shape, and how many rows go through them. */
export interface LinearShape {
  /** Rows, of all lanes together. */
  rows: number;
  /** Numbers of a row that go in. */
  inputs: number;
  /** Numbers of a row that come out. */
  outputs: number;
  /** How many such layers, each with weights of its own. Default 1. */
  count?: number;
}

/**
 * The seconds that linear layers take, one after the other, as the model computes them: in one call, until the last
 * result is there. Many layers in a call make the call itself count for little, and their weights outgrow the caches.
 * Throws a RangeError on a backend that runs whole steps only.
 *
 * @example
 * ```ts
 * import { timeLinear, useBackend } from "../mod.ts";
 *
 * const rows = 8, inputs = 768, outputs = 3072;
 * const seconds = await timeLinear(await useBackend(), { rows, inputs, outputs }, { dtype: "float32" });
 * console.log(2 * rows * inputs * outputs / seconds / 1e9, "billion operations per second");
 * ```
 */
export async function timeLinear(
  backend: Backend,
  { rows, inputs, outputs, count = 1 }: LinearShape,
  { dtype = "float32", parallelism = allThreads(backend), runs = 8 }: MeasureOptions = {},
): Promise<number> {
  checkTimesOperations(backend);
  checkParallelism(parallelism);
  const part = ([start, end]: Range) => {
    const weight = tf.fill<tf.Rank.R2>([inputs, end - start], 0.02), bias = tf.fill<tf.Rank.R1>([end - start], 0);
    return backend.ops.linear(weight, bias, { name: "measured", dtype, inputRange: [-1, 1] });
  };
  // Divided as models are, so that the cores share each layer.
  const layer = () => ranges(outputs, backend.groups, 16).map(part);
  const layers = onBackend(backend, () => Array.from({ length: count }, layer));
  const lanes = Math.min(parallelism.lanes, rows);
  const share = (i: number) => Math.floor(rows * (i + 1) / lanes) - Math.floor(rows * i / lanes);
  const inputsOf = onBackend(
    backend,
    () => Array.from({ length: lanes }, (_, i) => tf.fill<tf.Rank.R2>([share(i), inputs], 0.5)),
  );
  try {
    return await fastest(backend, inputsOf.map((x) => [x]), ([x]) => oneAfterTheOther(layers, x), {
      ...parallelism,
      lanes,
    }, runs);
  } finally {
    tf.dispose(inputsOf);
    for (const layer of layers.flat()) layer.dispose();
  }
}

/** Throws a RangeError on a backend where an operation by itself is not what a step is made of. */
function checkTimesOperations({ name, measureRoofs }: Backend): void {
  if (!measureRoofs) return;
  throw new RangeError(
    `Cannot time an operation by itself on ${name}, which runs whole steps: use measureRoofs() or sweep().`,
  );
}

/**
 * Layers, each in parts that read the same input. Of each result one number is used, so that the next layer must wait for
 * it, and handing it over takes no time.
 */
function oneAfterTheOther(layers: readonly Linear[][], x: tf.Tensor): tf.Tensor {
  const firstNumber = (y: tf.Tensor2D) => tf.slice(y, [0, 0], [1, 1]);
  return layers.reduce<tf.Tensor>((before, parts) => {
    const input = tf.add(x, tf.mul(before, 0)) as tf.Tensor2D;
    return tf.addN(parts.map((part) => firstNumber(part.apply(input))));
  }, tf.scalar(0));
}

/**
 * The fewest seconds of several runs of `work`, called side by side, once for each lane's inputs. The first run prepares
 * and does not count.
 */
async function fastest(
  backend: Backend,
  lanes: readonly tf.Tensor[][],
  work: (inputs: tf.Tensor[]) => tf.Tensor,
  parallelism: Parallelism,
  runs: number,
): Promise<number> {
  const captured = backend.capture?.(lanes[0], (standIns) => [work(standIns)], { repeated: true });
  const once = async (inputs: tf.Tensor[]) => {
    const [result] = captured
      ? await captured.run(inputs, parallelism)
      : [onBackend(backend, () => tf.tidy(() => work(inputs)))];
    await result.data();
    result.dispose();
  };
  let best = Infinity;
  try {
    for (let run = 0; run <= runs; run++) {
      const start = performance.now();
      await Promise.all(lanes.map(once));
      if (run > 0) best = Math.min(best, (performance.now() - start) / 1000);
    }
  } finally {
    captured?.dispose();
  }
  return best;
}

function allThreads({ threads }: Backend): Parallelism {
  return { lanes: 1, threads };
}
