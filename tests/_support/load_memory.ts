/**
 * Loads a model, generates, and prints how much memory that took at most, as JSON.
 *
 *     deno run -A tests/_support/load_memory.ts FOLDER [DTYPE [BATCH_SIZE PROMPT_TOKENS NEW_TOKENS]]
 */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { useBackend } from "../../lib/backend/select.ts";
import { padBatch } from "../../lib/tokenizer/batch.ts";
import { generateBatch } from "../../lib/engine/generate.ts";
import { parameterCount } from "../../lib/gpt2/config.ts";
import { loadGPT2 } from "../../lib/gpt2/load.ts";
import type { Dtype } from "../../lib/backend/ops.ts";

/** The most memory that the process had, in bytes, after each stage; and how long they took. */
export interface LoadMemory {
  parameters: number;
  /** Before the model. */
  ready: number;
  loaded: number;
  generated: number;
  loadSeconds: number;
  generateSeconds: number;
  /** What it printed. */
  tokens: number[][];
}

/** What is generated. */
export interface LoadWork {
  batchSize: number;
  promptTokens: number;
  maxTokens: number;
}

/** Enough to show that it can. */
const LITTLE: LoadWork = { batchSize: 2, promptTokens: 3, maxTokens: 3 };

/** Loads the model in `folder` and generates with it, in a process of its own. */
export async function loadInItsOwnProcess(folder: string, dtype: Dtype, work = LITTLE): Promise<LoadMemory> {
  const { batchSize, promptTokens, maxTokens } = work;
  const args = ["run", "-A", fileURLToPath(import.meta.url), folder, dtype];
  args.push(...[batchSize, promptTokens, maxTokens].map(String));
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** The most memory this process has had so far, in bytes. */
function peak(): number {
  return 1024 * Number(/VmHWM:\s*(\d+) kB/.exec(Deno.readTextFileSync("/proc/self/status"))![1]);
}

async function measure(folder: string, dtype: Dtype, work: LoadWork): Promise<LoadMemory> {
  const { batchSize, promptTokens, maxTokens } = work;
  const backend = await useBackend("tensorflow", { log: () => {} });
  const ready = peak(), start = performance.now();
  using model = await loadGPT2(folder, { backend, dtype });
  const loaded = peak(), afterLoad = performance.now();
  const prompts = Array.from({ length: batchSize }, (_, row) => {
    return Array.from({ length: promptTokens }, (_, i) => (row * promptTokens + i) % model.config.vocab_size);
  });
  const inputs = padBatch(prompts, { padTokenId: 0 });
  const answers = await generateBatch(model, inputs, { maxTokens, ignoreEos: true });
  return {
    parameters: parameterCount(model.config),
    ready,
    loaded,
    generated: peak(),
    loadSeconds: (afterLoad - start) / 1000,
    generateSeconds: (performance.now() - afterLoad) / 1000,
    tokens: answers.map(({ tokens }) => tokens),
  };
}

if (import.meta.main) {
  const [folder, dtype = "float32", ...numbers] = Deno.args;
  const [batchSize, promptTokens, maxTokens] = numbers.length ? numbers.map(Number) : Object.values(LITTLE);
  console.log(JSON.stringify(await measure(folder, dtype as Dtype, { batchSize, promptTokens, maxTokens })));
}
