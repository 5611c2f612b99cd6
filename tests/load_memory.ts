/** `load_memory.ts FOLDER DTYPE`: loads a model, generates, and prints how much memory that took at most, as JSON. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { useBackend } from "../lib/backend.ts";
import { generateBatch } from "../lib/generate.ts";
import { parameterCount } from "../lib/gpt2/config.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import type { Dtype } from "../lib/ops.ts";

/** The most memory that the process had, in bytes, after each stage; and how long they took. */
export interface LoadMemory {
  parameters: number;
  /** Before the model. */
  ready: number;
  loaded: number;
  generated: number;
  loadSeconds: number;
  generateSeconds: number;
  /** What it said. */
  tokens: number[][];
}

/** Loads the model in `folder` and generates with it, in a process of its own. */
export async function loadInItsOwnProcess(folder: string, dtype: Dtype): Promise<LoadMemory> {
  const args = ["run", "-A", fileURLToPath(import.meta.url), folder, dtype];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** The most memory this process has had so far, in bytes. */
function peak(): number {
  return 1024 * Number(/VmHWM:\s*(\d+) kB/.exec(Deno.readTextFileSync("/proc/self/status"))![1]);
}

async function measure(folder: string, dtype: Dtype): Promise<LoadMemory> {
  const backend = await useBackend("tensorflow", { log: () => {} });
  const ready = peak(), start = performance.now();
  using model = await loadGPT2(folder, { backend, dtype });
  const loaded = peak(), afterLoad = performance.now();
  const inputs = { inputIds: [[1, 2, 3], [4, 5, 6]], attentionMask: [[1, 1, 1], [1, 1, 1]] };
  const answers = await generateBatch(model, inputs, { maxTokens: 3, ignoreEos: true });
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

if (import.meta.main) console.log(JSON.stringify(await measure(Deno.args[0], Deno.args[1] as Dtype)));
