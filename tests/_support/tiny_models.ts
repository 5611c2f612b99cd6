/** Small GPT-2 folders with random weights that are large enough for every part of the model to show in the logits. */

import { join } from "node:path";
import { parseConfig } from "../../lib/gpt2/config.ts";
import { type TensorData, writeSafetensors } from "../../lib/safetensors/reader.ts";
import { weightShapes } from "../../lib/gpt2/weights.ts";
import { fillNormal } from "../../lib/util/random.ts";

/** How the folder's files are written. */
export interface TinyModelOptions {
  seed: number;
  config?: Record<string, unknown>;
  /** Names with `transformer.` before them, as some of the hub's files have. */
  prefix?: boolean;
  /** With the buffers of old checkpoints: `attn.bias`, `attn.masked_bias`, and a copy of the head. */
  buffers?: boolean;
  dtype?: "F32" | "F16" | "BF16";
}

/** The configuration of the tiny models, unless a test says otherwise. */
export const TINY = { vocab_size: 97, n_positions: 96, n_embd: 24, n_layer: 2, n_head: 3, eos_token_id: 96 };

/** Writes `config.json` and `model.safetensors` into a new temporary folder and returns its path. */
export async function writeTinyModel(options: TinyModelOptions): Promise<string> {
  const { seed, prefix = false, buffers = false, dtype = "F32" } = options;
  const folder = await Deno.makeTempDir({ prefix: "omnibus-tiny-" });
  const json = { model_type: "gpt2", activation_function: "gelu_new", ...TINY, ...options.config };
  const config = parseConfig(json, "tiny");
  const tensors = new Map<string, TensorData>();
  const stored = (name: string) => (prefix ? "transformer." : "") + name;
  let next = seed;
  for (const [name, shape] of weightShapes(config)) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    fillNormal(data, next++, 0.3);
    if (/ln_\w\.weight$/.test(name)) data.forEach((value, i) => data[i] = 1 + value);
    tensors.set(stored(name), { dtype, shape, data });
  }
  for (let i = 0; buffers && i < config.n_layer; i++) {
    const P = config.n_positions, data = new Float32Array(P * P).fill(1);
    tensors.set(stored(`h.${i}.attn.bias`), { dtype: "F32", shape: [1, 1, P, P], data });
    tensors.set(stored(`h.${i}.attn.masked_bias`), { dtype: "F32", shape: [], data: new Float32Array([-1e4]) });
  }
  if (buffers) tensors.set("lm_head.weight", tensors.get(stored("wte.weight"))!);
  await writeSafetensors(join(folder, "model.safetensors"), tensors);
  await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify(json));
  return folder;
}
