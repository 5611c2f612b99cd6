import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { generateBatch } from "../lib/engine/generate.ts";
import { openTensorflow } from "../lib/tensorflow/tfjs/backend.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { collectGarbage } from "./_support/garbage.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

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
  await collectGarbage();
  assert.equal((await openTensorflow()).collectedTensors, 0, "tensors were forgotten");
  assert.ok(after.megabytes < before.megabytes + 30, "a cache of this model is 0.02 MB, its steps use 0.1 MB");
});

Deno.test("100,000 eager operations leave the number of tensors and the resident memory where they were", async () => {
  const { binding } = await openTensorflow();
  const x = tf.ones<tf.Rank.R2>([8, 8]),
    names = tf.tensor1d(["one", "a string that is too long for its record", "three"]);
  const run = async (times: number) => {
    for (let i = 0; i < times / 5; i++) {
      tf.tidy(() => {
        const [first] = tf.split(tf.relu(tf.matMul(x, x)), 2); // three operations
        tf.conv2d(tf.reshape<tf.Rank.R3>(first, [4, 4, 2]), tf.ones<tf.Rank.R4>([2, 2, 2, 1]), 1, "same");
        tf.concat([names, names]).dataSync();
      });
      if (i % 1000 === 0) await new Promise((resolve) => setTimeout(resolve)); // finalizers run between tasks
    }
    await collectGarbage();
    const { rss, heapTotal } = Deno.memoryUsage(); // JavaScript's heap swings by more than what is looked for here
    return { tensors: tf.memory().numTensors, handles: binding.getNumOfTensors(), megabytes: (rss - heapTotal) / 1e6 };
  };
  await run(20_000);
  const before = await run(1000);
  const after = await run(100_000);
  console.log(`tensors ${before.tensors} -> ${after.tensors}; RSS ${before.megabytes} -> ${after.megabytes} MB`);
  assert.deepEqual([after.tensors, after.handles], [before.tensors, before.handles]);
  assert.ok(after.megabytes < before.megabytes + 30, "300 bytes for each operation: less than a tensor takes");
  tf.dispose([x, names]);
});
