/**
 * Models in low precision on disk: the weights of linear layers, and the embedding that is the head too, as int8 with a scale
 * for each output channel, or as bfloat16.
 *
 * Weights are read, rounded and written one by one. A file's int8 weights are used exactly as they are by a model that is
 * loaded as int8.
 */

import { basename, dirname, join, resolve } from "node:path";
import { readConfig } from "./config_file.ts";
import { streamSafetensors, type TensorDeclaration } from "../safetensors/reader.ts";
import { checkpointWeights, inputRange, layerName, outputAxis, weightShapes, type WeightSource } from "./weights.ts";
import { type ActivationRanges, quantizeInt8 } from "../backend/int8.ts";
import type { Dtype } from "../backend/ops.ts";

/** What weights can be made. */
export type LowPrecisionDtype = Exclude<Dtype, "float32">;

/** Copied when they are there. */
const COMPANIONS = ["tokenizer.json", "tokenizer_config.json"];

/**
 * Writes the model in `folder` to `output`, a folder that must not exist, with weights of type `dtype`. It appears whole or
 * not at all. An int8 file says too what the layers' inputs range over, if that is known or `activationRanges` finds out,
 * which is called once it is clear that the output can be written.
 * Throws a RangeError if `output` is there or cannot be made, and what loading the model would throw.
 *
 * @example
 * ```ts
 * import { loadGPT2 } from "./load.ts";
 * import { quantizeModel } from "./quantize.ts";
 *
 * const output = `${await Deno.makeTempDir()}/small-int8`;
 * await quantizeModel("models/small", output, "int8");
 * using model = await loadGPT2(output);
 * ```
 */
export async function quantizeModel(
  folder: string,
  output: string,
  dtype: LowPrecisionDtype,
  { activationRanges }: { activationRanges?: () => Promise<ActivationRanges> } = {},
): Promise<void> {
  if (await Deno.lstat(output).then(() => true, () => false)) {
    throw new RangeError(`Cannot write to ${output}: it is there already. Name a new folder.`);
  }
  const config = await readConfig(folder);
  using weights = await checkpointWeights(folder, config);
  const whole = resolve(output), work = await workFolder(whole);
  try {
    await Deno.copyFile(join(folder, "config.json"), join(work, "config.json"));
    for (const name of COMPANIONS) {
      await Deno.copyFile(join(folder, name), join(work, name)).catch((error) => {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      });
    }
    let ranges: ActivationRanges = new Map();
    if (dtype === "int8") ranges = await activationRanges?.() ?? weights.activationRanges;
    await writeLowPrecision(join(work, "model.safetensors"), weights, weightShapes(config), dtype, ranges);
    await Deno.chmod(work, 0o755).catch(() => {}); // temporary folders are private; Windows has no modes
    await Deno.rename(work, whole);
  } catch (error) {
    await Deno.remove(work, { recursive: true });
    throw error;
  }
}

/** An empty folder beside `output`. */
async function workFolder(output: string): Promise<string> {
  try {
    await Deno.mkdir(dirname(output), { recursive: true });
    return await Deno.makeTempDir({ dir: dirname(output), prefix: `.writing-${basename(output)}-` });
  } catch (cause) {
    throw new RangeError(`Cannot write to ${output}: ${(cause as Error).message}. Name another folder.`, { cause });
  }
}

/** Writes weights of those names and shapes one by one, so that no more than one of them is in memory. */
async function writeLowPrecision(
  path: string,
  weights: WeightSource,
  shapes: ReadonlyMap<string, number[]>,
  dtype: LowPrecisionDtype,
  activationRanges: ActivationRanges,
): Promise<void> {
  const rangeOf = (weight: string) =>
    outputAxis(weight) === undefined ? undefined : activationRanges.get(layerName(weight));
  const declared = new Map<string, TensorDeclaration>();
  for (const [name, shape] of shapes) {
    const axis = outputAxis(name);
    declared.set(name, { dtype: axis === undefined ? "F32" : dtype === "int8" ? "I8" : "BF16", shape });
    if (axis !== undefined && dtype === "int8") declared.set(`${name}.scale`, { dtype: "F32", shape: [shape[axis]] });
    if (rangeOf(name)) declared.set(inputRange(layerName(name)), { dtype: "F32", shape: [2] });
  }
  const quantization = dtype === "int8" ? "int8, symmetric, one scale per output channel" : "bfloat16";
  await streamSafetensors(path, declared, { format: "pt", quantization }, async (put) => {
    for (const [name, shape] of shapes) {
      const axis = outputAxis(name);
      const read = async () => {
        const data = new Float32Array(shape.reduce((product, length) => product * length, 1));
        await weights.fill(name, data);
        return data;
      };
      if (axis === undefined || dtype === "bfloat16") await put(name, await read());
      else {
        const { values, scale } = await weights.int8(name) ?? quantizeInt8(await read(), [shape[0], shape[1]], axis);
        await put(name, values);
        await put(`${name}.scale`, scale);
        const range = rangeOf(name);
        if (range) await put(inputRange(layerName(name)), new Float32Array(range));
      }
    }
  });
}
