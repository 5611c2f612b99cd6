import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { type GenerateOptions, generateSteps, type Step } from "../lib/engine/generate.ts";
import type { Generated } from "../lib/engine/request.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { generateStepsWithoutCache } from "../lib/engine/without_cache.ts";
import { assertClose } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const backend = await useBackend("tensorflow");
const tiny = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
const inputs = padBatch([[5, 6, 7, 8, 9], [10], [11, 12]], { padTokenId: 0 });

/** All steps, and what the generator returns at the end. */
async function run(generator: AsyncGenerator<Step, Generated[]>) {
  const steps: Step[] = [];
  for (let next = await generator.next();; next = await generator.next()) {
    if (next.done) return { steps, answers: next.value };
    steps.push(next.value);
  }
}

Deno.test("without a cache, a batch gets the same steps and the same answers as with it", async () => {
  const options: GenerateOptions = { maxTokens: 40, ignoreEos: true, logprobs: true };
  const kept = await run(generateSteps(tiny, inputs, options));
  const again = await run(generateStepsWithoutCache(tiny, inputs, options));
  assert.deepEqual(again.steps, kept.steps);
  assert.deepEqual(again.answers.map(({ tokens }) => tokens), kept.answers.map(({ tokens }) => tokens));
  again.answers.forEach(({ logprobs }, i) => assertClose(logprobs!, kept.answers[i].logprobs!, 1e-4, `row ${i}`));
});

Deno.test("without a cache, rows end where they end with it, and generation with the last of them", async () => {
  const { answers: [first, second] } = await run(generateSteps(tiny, inputs, { maxTokens: 6, ignoreEos: true }));
  const ending = first.tokens[2]; // made the end of text, so that rows end at different steps, or never
  assert.ok(!second.tokens.slice(0, 2).includes(ending));
  using model = await loadGPT2(await writeTinyModel({ seed: 1, config: { eos_token_id: ending } }), { backend });
  const kept = await run(generateSteps(model, inputs, { maxTokens: 6 }));
  assert.equal(kept.answers[0].finishReason, "stop");
  assert.deepEqual(await run(generateStepsWithoutCache(model, inputs, { maxTokens: 6 })), kept);

  const alone = padBatch([[5, 6, 7, 8, 9]], { padTokenId: 0 });
  assert.equal((await run(generateStepsWithoutCache(model, alone, { maxTokens: 6 }))).steps.length, 3);
});

Deno.test("without a cache, inputs stay as they are, nothing leaks, and too much is refused at once", async () => {
  const copy = structuredClone(inputs), before = tf.memory().numTensors;
  for await (const _ of generateStepsWithoutCache(tiny, inputs, { maxTokens: 60 })) break;
  await assert.rejects(run(generateStepsWithoutCache(tiny, inputs, { maxTokens: 92 })), /Lower maxTokens to 91/);
  await assert.rejects(run(generateStepsWithoutCache(tiny, inputs, { maxTokens: 0 })), /whole number from 1 up/);
  assert.deepEqual(inputs, copy);
  assert.equal(tf.memory().numTensors, before);
});
