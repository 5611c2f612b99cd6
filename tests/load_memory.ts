/** `load_memory.ts FOLDER DTYPE`: loads a model, generates, and prints how much memory that took at most, as JSON. */

import { useBackend } from "../lib/backend.ts";
import { generateBatch } from "../lib/generate.ts";
import { parameterCount } from "../lib/gpt2/config.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import type { Dtype } from "../lib/ops.ts";

const [folder, dtype] = Deno.args;

/** The most memory this process has had so far, in bytes. */
function peak(): number {
  return 1024 * Number(/VmHWM:\s*(\d+) kB/.exec(Deno.readTextFileSync("/proc/self/status"))![1]);
}

const backend = await useBackend("tensorflow", { log: () => {} });
const ready = peak(), started = performance.now();
using model = await loadGPT2(folder, { backend, dtype: dtype as Dtype });
const loaded = peak(), loadSeconds = (performance.now() - started) / 1000;
const inputs = { inputIds: [[1, 2, 3], [4, 5, 6]], attentionMask: [[1, 1, 1], [1, 1, 1]] };
const answers = await generateBatch(model, inputs, { maxTokens: 3, ignoreEos: true });
const generateSeconds = (performance.now() - started) / 1000 - loadSeconds;
console.log(JSON.stringify({
  parameters: parameterCount(model.config),
  ready,
  loaded,
  generated: peak(),
  atTheEnd: Deno.memoryUsage().rss,
  loadSeconds,
  generateSeconds,
  tokens: answers.map(({ tokens }) => tokens),
}));
