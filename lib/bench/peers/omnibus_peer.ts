/** Omnibus as a peer of the others; see protocol.ts. Its argument is the same JSON that they get. */

import { useBackend } from "../../backend/select.ts";
import { padBatch } from "../../tokenizer/batch.ts";
import { decodeStep, prefill } from "../../engine/generate.ts";
import { loadGPT2 } from "../../pretrained.ts";
import type { GPT2 } from "../../gpt2/model.ts";
import { nextTokenLogits } from "../../engine/logits.ts";
import { type Generation, serve, type Work } from "./protocol.ts";

const { model: folder, dtype, threads } = JSON.parse(Deno.args[0]);
const backend = await useBackend("auto", { threads });
using model = await loadGPT2(folder, { backend, dtype });
await serve({ about: backend.description, versions: { omnibus: await version(), deno: Deno.version.deno } }, {
  generate: (work) => generate(model, work),
  async logits(ids) {
    const [logits] = await nextTokenLogits(model, padBatch([ids], { padTokenId: 0 }));
    return [...logits];
  },
});

/** As `timeGeneration` of lib/bench/measure.ts, with the tokens. */
async function generate(model: GPT2, { ids, batchSize, maxTokens }: Work): Promise<Generation> {
  const inputs = padBatch(Array.from({ length: batchSize }, () => [...ids]), { padTokenId: 0 });
  const start = performance.now();
  using generation = await prefill(model, inputs, { maxTokens, ignoreEos: true });
  const first = performance.now();
  while (!generation.finished) await decodeStep(model, generation);
  const end = performance.now();
  return {
    prefillSeconds: (first - start) / 1000,
    decodeSeconds: (end - first) / 1000,
    tokens: generation.rows.map((row) => row.tokens),
  };
}

async function version(): Promise<string> {
  return JSON.parse(await Deno.readTextFile(new URL("../../../deno.json", import.meta.url))).version;
}
