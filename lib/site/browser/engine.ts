/** The library's engine on the visitor's machine: its GPU through WebGPU, or WebAssembly where there is none. */

import { useBackend } from "../../backend/select.ts";
import type { Backend } from "../../backend/types.ts";
import { FOX } from "../../bench/fox.ts";
import { timeGeneration } from "../../bench/measure.ts";
import { generateSteps } from "../../engine/generate.ts";
import { parseConfig } from "../../gpt2/config.ts";
import { buildGPT2 } from "../../gpt2/load.ts";
import type { GPT2 } from "../../gpt2/model.ts";
import { weightsOf } from "../../gpt2/weights.ts";
import { type ByteSource, SafetensorsFile } from "../../safetensors/reader.ts";
import { padBatch } from "../../tokenizer/batch.ts";
import { bytePairTokenizer, type Tokenizer } from "../../tokenizer/byte_pair.ts";
import { median } from "../../util/median.ts";
import type { ModelFiles } from "./model_files.ts";

/** A model that is ready, and its tokenizer. */
export interface Loaded {
  model: GPT2;
  tokenizer: Tokenizer;
}

/** Starts the visitor's GPU, or WebAssembly where there is none that WebGPU reaches. */
export async function startBackend(): Promise<Backend> {
  return await useBackend("webgpu").catch(() => useBackend("wasm"));
}

/** The model in these files. */
export async function loadModel(files: ModelFiles, backend: Backend): Promise<Loaded> {
  const json = async (name: keyof ModelFiles) => JSON.parse(await files[name].text());
  const config = parseConfig(await json("config.json"), "config.json");
  const file = await SafetensorsFile.of(bytesOf("model.safetensors", files["model.safetensors"]));
  using weights = await weightsOf(file, "the model", config);
  const model = await buildGPT2(config, weights, { backend });
  const tokenizer = bytePairTokenizer(
    await json("tokenizer.json"),
    await json("tokenizer_config.json"),
    "tokenizer.json",
  );
  return { model, tokenizer };
}

function bytesOf(path: string, blob: Blob): ByteSource {
  return {
    path,
    size: blob.size,
    read: async (position, bytes) =>
      bytes.set(new Uint8Array(await blob.slice(position, position + bytes.length).arrayBuffer())),
    [Symbol.dispose]() {},
  };
}

/** Continues a text, greedily; `onText` hears what is added. Throws the signal's reason if it is aborted. */
export async function continueText(
  { model, tokenizer }: Loaded,
  prompt: string,
  { maxTokens, signal, onText }: { maxTokens: number; signal: AbortSignal; onText: (text: string) => void },
): Promise<void> {
  for await (const { texts } of generateSteps(model, tokenizer(prompt), { maxTokens, tokenizer, signal })) {
    onText(texts[0]);
  }
}

/** One size of the sweep: tokens of all rows a second, and seconds a token. */
export interface Point {
  batchSize: number;
  throughput: number;
  latency: number;
}

/** The experiment: seven-token prompts, ten new tokens, a batch of so many rows; the median of three runs after a first. */
export async function measureBatch({ model }: Loaded, batchSize: number, signal: AbortSignal): Promise<Point> {
  const prompt = FOX.map((id) => id % model.config.vocab_size), maxTokens = 10;
  const batch = padBatch(Array(batchSize).fill(prompt), { padTokenId: 0 }), seconds: number[] = [];
  for (let run = 0; run < 4; run++) {
    signal.throwIfAborted();
    const { prefillSeconds, decodeSeconds } = await timeGeneration(model, batch, maxTokens);
    if (run > 0) seconds.push(prefillSeconds + decodeSeconds);
  }
  const total = median(seconds);
  return { batchSize, throughput: batchSize * maxTokens / total, latency: total / maxTokens };
}
