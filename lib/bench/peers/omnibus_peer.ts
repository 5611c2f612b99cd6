/** Omnibus as a peer of the others; see protocol.ts. Its argument is the same JSON that they get. */

import { setTimeout as after } from "node:timers/promises";
import { useBackend } from "../../backend/select.ts";
import { padBatch } from "../../tokenizer/batch.ts";
import { Engine } from "../../engine/engine.ts";
import { decodeStep, decodeSteps, prefill } from "../../engine/generate.ts";
import { loadGPT2 } from "../../pretrained.ts";
import type { GPT2 } from "../../gpt2/model.ts";
import { nextTokenLogits } from "../../engine/logits.ts";
import { type Asked, type Generation, serve, type Served, type Traffic, type Work } from "./protocol.ts";

const { model: folder, dtype, threads, backend: name } = JSON.parse(Deno.args[0]);
const backend = await useBackend(name, { threads, dtype });
using model = await loadGPT2(folder, { backend, dtype });
await serve({ about: backend.description, versions: { omnibus: await version(), deno: Deno.version.deno } }, {
  generate: (work) => generate(model, work),
  serve: (traffic) => traffic.batching === "static" ? inBatches(model, traffic) : byEngine(model, traffic),
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
  while (!generation.finished) await decodeSteps(model, generation);
  const end = performance.now();
  return {
    prefillSeconds: (first - start) / 1000,
    decodeSeconds: (end - first) / 1000,
    tokens: generation.rows.map((row) => row.tokens),
  };
}

/** Batch after batch: rows that have ended are computed until the last one of their batch has. */
async function inBatches(model: GPT2, { requests, seats }: Traffic): Promise<Served> {
  const seconds: number[][] = [], tokens: number[][] = [], start = performance.now();
  for (let first = 0; first < requests.length; first += seats) {
    const batch = requests.slice(first, first + seats), times: number[] = [];
    const inputs = padBatch(batch.map(({ prompt }) => [...prompt]), { padTokenId: 0 });
    const tick = () => times.push((performance.now() - start) / 1000);
    const maxTokens = Math.max(...batch.map(({ maxTokens }) => maxTokens));
    using generation = await prefill(model, inputs, { maxTokens, ignoreEos: true });
    for (tick(); !generation.finished; tick()) await decodeStep(model, generation);
    for (const [i, { maxTokens }] of batch.entries()) {
      seconds.push(times.slice(0, maxTokens));
      tokens.push(generation.rows[i].tokens.slice(0, maxTokens));
    }
  }
  return { seconds, tokens };
}

/** Continuous batching: each caller comes at its time, and reads its stream. */
async function byEngine(model: GPT2, { requests, seats }: Traffic): Promise<Served> {
  await using engine = new Engine({ model, maxBatch: seats, maxQueue: requests.length, timelineSteps: 100_000 });
  await engine.warmUp();
  const start = performance.now(), now = () => (performance.now() - start) / 1000;
  const call = async ({ prompt, maxTokens, arrivalSeconds }: Asked) => {
    const early = arrivalSeconds - now();
    if (early > 0) await after(1000 * early);
    const seconds: number[] = [], { stream, result } = engine.submit({ prompt, maxTokens, ignoreEos: true });
    for await (const _ of stream) seconds.push(now());
    return { seconds, tokens: (await result).tokens };
  };
  const answers = await Promise.all(requests.map(call));
  return {
    seconds: answers.map(({ seconds }) => seconds),
    tokens: answers.map(({ tokens }) => tokens),
    steps: engine.timeline.steps,
  };
}

async function version(): Promise<string> {
  return JSON.parse(await Deno.readTextFile(new URL("../../../deno.json", import.meta.url))).version;
}
