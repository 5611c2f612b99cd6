/** The weights that every peer runs: GPT-2's if they are there, else random ones of the same shape. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gpt2Config } from "../../gpt2/config.ts";
import { type TensorData, writeSafetensors } from "../../safetensors/reader.ts";
import { weightShapes } from "../../gpt2/weights.ts";
import { fillNormal } from "../../util/random.ts";

const models = fileURLToPath(new URL("../../../models", import.meta.url));

/** A folder with GPT-2 124M; when it is not in `models/`, one with random weights, which is made once in `folder`. */
export async function benchModel(folder: string): Promise<{ path: string; random: boolean }> {
  const downloaded = join(models, "gpt2");
  if (await exists(join(downloaded, "model.safetensors"))) return { path: downloaded, random: false };
  const path = join(folder, "untrained-gpt2");
  if (!await exists(join(path, "config.json"))) await writeRandomModel(path);
  return { path, random: true };
}

/**
 * Random weights, as large as GPT-2's are before training (Radford et al. 2019, section 2.3), so that int8 finds activations that
 * it can round. Biases and gains are random, too: every part shows in the logits, and a peer that leaves one out is found out.
 * The words are GPT-2's: some converters want them.
 */
async function writeRandomModel(path: string): Promise<void> {
  const config = gpt2Config("gpt2");
  const tensors = new Map<string, TensorData>();
  let seed = 0;
  for (const [name, shape] of weightShapes(config)) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    fillNormal(data, seed++, /ln_\w\./.test(name) ? 0.05 : 0.02);
    if (/ln_\w\.weight$/.test(name)) data.forEach((value, i) => data[i] = 1 + value);
    tensors.set(name, { dtype: "F32", shape, data });
  }
  await Deno.mkdir(path, { recursive: true });
  await writeSafetensors(join(path, "model.safetensors"), tensors, { format: "pt" });
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    await Deno.copyFile(join(models, "small", name), join(path, name));
  }
  const architecture = { model_type: "gpt2", architectures: ["GPT2LMHeadModel"], activation_function: "gelu_new" };
  // The last file: it says that the others are complete.
  await Deno.writeTextFile(join(path, "config.json"), JSON.stringify({ ...architecture, ...config }, null, 2) + "\n");
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}
