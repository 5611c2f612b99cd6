/**
 * Models made narrow on disk: the weights of linear layers, and the embedding that is the head too, as int8 with a scale
 * for each output channel, or as bfloat16.
 *
 * A file's int8 weights are those that loading the wide model as int8 makes: symmetric, −127 to 127, each channel to its
 * largest magnitude.
 */

import { basename, dirname, join, resolve } from "node:path";
import { readConfig } from "./gpt2/config.ts";
import { type TensorData, writeSafetensors } from "./gpt2/safetensors.ts";
import { checkpointWeights, outputAxis, weightShapes } from "./gpt2/weights.ts";
import type { Dtype } from "./ops.ts";

/** Copied when they are there. */
const COMPANIONS = ["tokenizer.json", "tokenizer_config.json"];

/**
 * Writes the model in `folder` to `output`, a folder that must not exist, with weights of type `dtype`. It appears whole or
 * not at all. Throws a RangeError if `output` is there, and what loading the model would throw.
 *
 * @example
 * ```ts
 * import { loadGPT2 } from "./gpt2/load.ts";
 * import { quantizeModel } from "./quantize.ts";
 *
 * const output = `${await Deno.makeTempDir()}/small-int8`;
 * await quantizeModel("models/small", output, "int8");
 * using model = await loadGPT2(output);
 * ```
 */
export async function quantizeModel(folder: string, output: string, dtype: Exclude<Dtype, "float32">): Promise<void> {
  if (await Deno.lstat(output).then(() => true, () => false)) {
    throw new RangeError(`Cannot write to ${output}: it is there already. Name a new folder.`);
  }
  const config = await readConfig(folder);
  using weights = await checkpointWeights(folder, config);
  const tensors = new Map<string, TensorData>();
  for (const [name, shape] of weightShapes(config)) {
    const data = new Float32Array(shape.reduce((product, length) => product * length, 1)), axis = outputAxis(name);
    await weights.fill(name, shape, data);
    if (axis === undefined) tensors.set(name, { dtype: "F32", shape, data });
    else if (dtype === "bfloat16") tensors.set(name, { dtype: "BF16", shape, data });
    else {
      const { values, scale } = quantizeInt8(data, shape, axis);
      tensors.set(name, { dtype: "I8", shape, data: values });
      tensors.set(`${name}.scale`, { dtype: "F32", shape: [scale.length], data: scale });
    }
  }
  const whole = resolve(output);
  await Deno.mkdir(dirname(whole), { recursive: true });
  const work = await Deno.makeTempDir({ dir: dirname(whole), prefix: `.writing-${basename(whole)}-` });
  try {
    await Deno.copyFile(join(folder, "config.json"), join(work, "config.json"));
    for (const name of COMPANIONS) {
      await Deno.copyFile(join(folder, name), join(work, name)).catch((error) => {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      });
    }
    const quantization = dtype === "int8" ? "int8, symmetric, one scale per output channel" : "bfloat16";
    await writeSafetensors(join(work, "model.safetensors"), tensors, { format: "pt", quantization });
    await Deno.chmod(work, 0o755).catch(() => {}); // temporary folders are private; Windows has no modes
    await Deno.rename(work, whole);
  } catch (error) {
    await Deno.remove(work, { recursive: true });
    throw error;
  }
}

/**
 * Weights [K, M], or [M, K] with `axis` 0 -> int8 values of the same shape and the M scales: weight ≈ value · scale. Rounds
 * as TensorFlow's QuantizeV2 does, in float32 and halves to even.
 */
export function quantizeInt8(
  weights: Float32Array,
  [rows, columns]: readonly number[],
  axis: 0 | 1,
): { values: Int8Array; scale: Float32Array } {
  const limit = new Float32Array(axis === 0 ? rows : columns).fill(1e-12); // a channel of zeros has a scale too
  eachChannel(rows, columns, axis, (i, channel) => {
    const size = Math.abs(weights[i]);
    if (size > limit[channel]) limit[channel] = size;
  });
  const factor = limit.map((limit) => 127 / limit);
  const values = new Int8Array(weights.length);
  eachChannel(rows, columns, axis, (i, channel) => values[i] = roundHalfToEven(weights[i] * factor[channel]));
  return { values, scale: limit.map(scaleOf) };
}

/** Calls `visit` with the index of every element of a matrix, row by row, and its channel along `axis`. */
function eachChannel(rows: number, columns: number, axis: 0 | 1, visit: (i: number, channel: number) => void): void {
  for (let row = 0, i = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) visit(i++, axis === 0 ? row : column);
  }
}

/** The number nearest to limit / 127 that gives, times 127, the limit again, where there is one. */
function scaleOf(limit: number): number {
  const scale = Math.fround(limit / 127);
  const near = [scale, Math.fround(scale * (1 + 2 ** -23)), Math.fround(scale * (1 - 2 ** -23))];
  return near.find((scale) => Math.fround(127 * scale) === limit) ?? scale;
}

/** Adding 1.5 · 2²³ to a float32 leaves no room for its fraction: it is rounded, and halves go to the even side. */
function roundHalfToEven(x: number): number {
  return Math.fround(Math.fround(x) + 3 * 2 ** 22) - 3 * 2 ** 22;
}
