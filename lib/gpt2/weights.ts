/** Where a model's weights come from: a checkpoint, or a seed. */

import * as tf from "@tensorflow/tfjs";
import {
  type ActivationRange,
  type ActivationRanges,
  dequantizeInt8,
  type Int8Weight,
  isActivationRange,
} from "../backend/int8.ts";
import { fillNormal } from "../util/random.ts";
import type { GPT2Config } from "./config.ts";
import { openWeights, SafetensorsError, type Weights } from "../safetensors/reader.ts";

/** Gives weights by their checkpoint names, without the prefix `transformer.`. */
export interface WeightSource extends Disposable {
  /** Writes the tensor called `name` into `values`, which has room for exactly it, row by row. */
  fill(name: string, values: Float32Array): Promise<void>;
  /** The tensor as it is stored, if it is int8; else null. The caller may change what it gets. */
  int8(name: string): Promise<Int8Weight | null>;
  /** The matrix by tfjs's operations on the current backend, as it is used there; where it is not filled on the host. */
  make?(shape: [number, number]): tf.Tensor2D;
  /** What is known of the inputs of the linear layers. */
  readonly activationRanges: ActivationRanges;
}

/**
 * The weights in a model's folder. Names may have the prefix `transformer.`, as some of the hub's files do; the causal
 * mask that old checkpoints carry (`attn.bias`) and a copy of the tied head are ignored. Throws a SafetensorsError that
 * names tensors that are missing, unknown, or of another shape than `config` asks for; and, when it reads them, those
 * with values that are infinite or no numbers.
 *
 * Linear weights and the embedding may be I8 with an F32 vector `NAME.scale`, one number for each output channel, as
 * lib/gpt2/quantize.ts writes them: they are read as value · scale, or as they are. With them may come what a layer's inputs
 * range over, the smallest and the largest, F32 [2], as `LAYER.input.range`.
 */
export async function checkpointWeights(folder: string, config: GPT2Config): Promise<WeightSource> {
  return await weightsOf(await openWeights(folder), folder, config);
}

/** The same of opened weights, which it takes over; `folder` is what errors call them. */
export async function weightsOf(file: Weights, folder: string, config: GPT2Config): Promise<WeightSource> {
  try {
    const stored = new Map<string, string>(); // our name -> the file's
    for (const name of file.tensors.keys()) {
      if (/(\.attn\.(masked_)?bias|^lm_head\.weight)$/.test(name)) continue;
      const ours = name.replace(/^transformer\./, "");
      if (stored.has(ours)) throw new SafetensorsError(folder, `it has both ${ours} and transformer.${ours}.`);
      stored.set(ours, name);
    }
    const expected = weightShapes(config);
    const scales = new Map<string, Float32Array>(); // of the weights that are int8
    const activationRanges = new Map<string, ActivationRange>();
    for (const [name, shape] of expected) {
      const info = file.tensors.get(stored.get(name) ?? "");
      if (!info) throw new SafetensorsError(folder, `there is no tensor ${name}. Is the download complete?`);
      const axis = outputAxis(name);
      const isInt8 = info.dtype === "I8" && axis !== undefined;
      if (!isInt8 && !["F32", "F16", "BF16"].includes(info.dtype)) {
        throw new SafetensorsError(
          folder,
          `${name} is ${info.dtype}. Models are read as F32, F16 or BF16: convert it.`,
        );
      }
      if (`${info.shape}` !== `${shape}`) {
        const says = `${name} has shape [${info.shape}] and config.json asks for [${shape}]`;
        throw new SafetensorsError(folder, `${says}. The two files belong to different models.`);
      }
      if (isInt8) scales.set(name, await readScale(file, stored, `${name}.scale`, shape[axis], folder));
      const layer = axis === undefined ? "" : layerName(name);
      if (layer && stored.has(inputRange(layer))) {
        activationRanges.set(layer, await readRange(file, stored, inputRange(layer), folder));
      }
    }
    const unknown = [...stored.keys()].filter((name) =>
      !expected.has(name) && !scales.has(name.replace(/\.scale$/, "")) &&
      !activationRanges.has(name.replace(/\.input\.range$/, ""))
    );
    if (unknown.length) {
      const more = unknown.length > 3 ? ` and ${unknown.length - 3} more` : "";
      throw new SafetensorsError(folder, `GPT-2 has no tensor ${unknown.slice(0, 3).join(", ")}${more}.`);
    }
    const int8 = async (name: string): Promise<Int8Weight | null> => {
      const scale = scales.get(name), [rows, columns] = expected.get(name)!;
      if (!scale) return null;
      const values = await file.readInt8(stored.get(name)!);
      return { values, shape: [rows, columns], axis: outputAxis(name)!, scale: scale.slice() };
    };
    return {
      int8,
      activationRanges,
      async fill(name, values) {
        const quantized = await int8(name);
        if (quantized) return dequantizeInt8(quantized, values);
        await file.readFloat32Into(stored.get(name)!, values);
        const i = indexOfNonFinite(values);
        if (i < 0) return;
        throw new SafetensorsError(folder, `${name} holds ${values[i]}, at index ${i}: no text could come of it.`);
      },
      [Symbol.dispose]: () => file[Symbol.dispose](),
    };
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/** A float32 vector of so many numbers. Throws a SafetensorsError if it is none. */
async function readVector(
  file: Weights,
  stored: ReadonlyMap<string, string>,
  name: string,
  length: number,
  folder: string,
): Promise<Float32Array> {
  const info = file.tensors.get(stored.get(name) ?? "");
  if (!info) throw new SafetensorsError(folder, `there is no tensor ${name}, which int8 weights need.`);
  if (info.dtype !== "F32" || `${info.shape}` !== `${length}`) {
    const says = `${name} is ${info.dtype} [${info.shape}]`;
    throw new SafetensorsError(folder, `${says}, and F32 [${length}] is needed.`);
  }
  return await file.readFloat32(stored.get(name)!);
}

/** What a layer's inputs range over. Throws a SafetensorsError if nothing could. */
async function readRange(
  file: Weights,
  stored: ReadonlyMap<string, string>,
  name: string,
  folder: string,
): Promise<ActivationRange> {
  const [low, high] = await readVector(file, stored, name, 2, folder);
  if (isActivationRange([low, high])) return [low, high];
  throw new SafetensorsError(
    folder,
    `${name} holds ${low} and ${high}: a range must be finite and hold zero and more.`,
  );
}

/** Scales of int8 numbers, as many as there are channels. Throws a SafetensorsError if they are not good. */
async function readScale(
  file: Weights,
  stored: ReadonlyMap<string, string>,
  name: string,
  channels: number,
  folder: string,
): Promise<Float32Array> {
  const scale = await readVector(file, stored, name, channels, folder);
  // 128 times a scale must be finite too: int8 goes down to -128.
  const i = scale.findIndex((value) => !(value > 0 && Number.isFinite(Math.fround(128 * value))));
  if (i < 0) return scale;
  throw new SafetensorsError(folder, `${name} holds ${scale[i]}, at index ${i}: scales must be positive and finite.`);
}

/**
 * The axis of a weight's output channels, for the weights that may be int8: those of linear layers, [inputs, outputs],
 * and the embedding [V, D], which is the head's weight transposed. Undefined for all others.
 */
export function outputAxis(name: string): 0 | 1 | undefined {
  if (name === "wte.weight") return 0;
  return /\.c_(attn|proj|fc)\.weight$/.test(name) ? 1 : undefined;
}

/** The layer that a weight with {@link outputAxis} belongs to. The head's is the embedding. */
export function layerName(weight: string): string {
  return weight === "wte.weight" ? "lm_head" : weight.replace(/\.weight$/, "");
}

/** The name of what a layer's inputs range over. */
export function inputRange(layer: string): string {
  return `${layer}.input.range`;
}

/** The first index of an infinity or a NaN; -1 if there is none, which one pass without branches finds out. */
function indexOfNonFinite(values: Float32Array): number {
  let zero = 0;
  for (let i = 0; i < values.length; i++) zero += 0 * values[i]; // infinity times 0 is NaN too
  return zero === 0 ? -1 : values.findIndex((value) => !Number.isFinite(value));
}

/** Random weights as GPT-2 starts its training with: normal with deviation 0.02, layer norms at 1 and 0. */
export function randomWeights(seed: number): WeightSource {
  let next = seed;
  return {
    fill: (name, values) => {
      if (/ln_\w\.weight$/.test(name)) values.fill(1);
      else if (/\.bias$/.test(name)) values.fill(0);
      else fillNormal(values, next++, 0.02);
      return Promise.resolve();
    },
    int8: () => Promise.resolve(null),
    activationRanges: new Map(),
    [Symbol.dispose]() {},
  };
}

/**
 * Weights of about the same size as {@link randomWeights}, but matrices are made where the model runs, in no time, and from few
 * random numbers: for timing models that would take minutes to fill.
 */
export function quickWeights(seed: number): WeightSource {
  let next = seed;
  const random = (size: number, deviation: number) => {
    const values = new Float32Array(size);
    fillNormal(values, next++, deviation);
    return tf.tensor1d(values);
  };
  return {
    ...randomWeights(seed),
    make: ([rows, columns]) =>
      tf.tidy(() => {
        const angles = tf.outerProduct(random(rows, 30), random(columns, 1));
        return tf.mul(tf.sin(angles), 0.02 * Math.SQRT2);
      }),
  };
}

/** The shape of every weight, by its checkpoint name. Linear weights are [inputs, outputs]. */
export function weightShapes(config: GPT2Config): Map<string, number[]> {
  const { vocab_size: V, n_positions: P, n_embd: D, n_inner: M, n_layer } = config;
  const layerNorm = (name: string): [string, number[]][] => [[`${name}.weight`, [D]], [`${name}.bias`, [D]]];
  const linear = (name: string, inputs: number, outputs: number): [string, number[]][] => [
    [`${name}.weight`, [inputs, outputs]],
    [`${name}.bias`, [outputs]],
  ];
  return new Map<string, number[]>([
    ["wte.weight", [V, D]],
    ["wpe.weight", [P, D]],
    ...Array.from({ length: n_layer }, (_, i): [string, number[]][] => [
      ...layerNorm(`h.${i}.ln_1`),
      ...linear(`h.${i}.attn.c_attn`, D, 3 * D),
      ...linear(`h.${i}.attn.c_proj`, D, D),
      ...layerNorm(`h.${i}.ln_2`),
      ...linear(`h.${i}.mlp.c_fc`, D, M),
      ...linear(`h.${i}.mlp.c_proj`, M, D),
    ]).flat(),
    ...layerNorm("ln_f"),
  ]);
}
