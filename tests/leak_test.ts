import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend.ts";
import { generateBatch } from "../lib/generate.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { padBatch } from "../lib/batch.ts";
import { writeTinyModel } from "./tiny_models.ts";

Deno.test("a thousand generations leave the number of tensors and the resident memory where they were", async () => {
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend: await useBackend("tensorflow") });
  const inputs = padBatch([[1, 2, 3, 4, 5], [6, 7]], { padTokenId: 0 });
  const generate = async (times: number) => {
    for (let i = 0; i < times; i++) await generateBatch(model, inputs, { maxTokens: 8, ignoreEos: true });
    return { tensors: tf.memory().numTensors, megabytes: Deno.memoryUsage().rss / 1e6 };
  };
  await generate(300); // memory pools and compiled code have grown to their size by then
  const before = await generate(1);
  const after = await generate(1000);
  console.log(`tensors ${before.tensors} -> ${after.tensors}; RSS ${before.megabytes} -> ${after.megabytes} MB`);
  assert.equal(after.tensors, before.tensors);
  assert.ok(after.megabytes < before.megabytes + 30, "a cache of this model is 0.02 MB, its steps use 0.1 MB");
});
