/** Models, caches and generations are freed once, when nobody uses them any more, and say so to those who come later. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import type { Backend } from "../lib/backend/types.ts";
import {
  generateBatch,
  generateSteps,
  generateTokenKvCaching,
  loadGPT2,
  nextTokenLogits,
  padBatch,
  PlainGPT2,
} from "../lib/mod.ts";
import { decodeStep, prefill } from "../lib/engine/generate.ts";
import { Runner } from "../lib/engine/runner.ts";
import { openSafetensors } from "../lib/safetensors/reader.ts";
import { openTensorflow } from "../lib/tensorflow/tfjs/backend.ts";
import { testOnEach, workingBackends } from "./_support/backends.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const inputs = padBatch([[1, 2, 3], [4]], { padTokenId: 0 }), next = [[5], [6]];
const folder = await writeTinyModel({ seed: 3 }), backends = await workingBackends();
const load = (backend: Backend) => loadGPT2(folder, { backend });
const MODEL = /^Error: Cannot use this model: it was disposed of\.$/;
const CACHE = /^Error: Cannot use this KV cache: it was disposed of\.$/;

testOnEach(
  backends,
  "models, caches and generations may be disposed of twice, and all their tensors go",
  async (backend) => {
    const before = tf.memory().numTensors;
    for (const dtype of backend.dtypes) {
      const model = await loadGPT2(folder, { backend, dtype });
      const { cache } = await generateTokenKvCaching(model, inputs),
        generation = await prefill(model, inputs, { maxTokens: 3 });
      for (let i = 0; i < 2; i++) for (const one of [generation, cache, model]) one[Symbol.dispose]();
      assert.equal(tf.memory().numTensors, before, dtype);
    }
  },
);

testOnEach(backends, "what was disposed of is refused by name, and nothing is left of the attempt", async (backend) => {
  using model = await load(backend);
  const gone = await load(backend);
  const { cache } = await generateTokenKvCaching(gone, inputs),
    kept = Runner.of(gone),
    generation = await prefill(model, inputs, { maxTokens: 3 });
  for (const one of [gone, generation]) one[Symbol.dispose]();
  const before = tf.memory().numTensors;
  await assert.rejects(generateBatch(gone, inputs, { maxTokens: 2 }), MODEL);
  await assert.rejects(Array.fromAsync(generateSteps(gone, inputs, { maxTokens: 2 })), MODEL);
  await assert.rejects(generateTokenKvCaching(gone, { inputIds: next, cache }), MODEL);
  await assert.rejects(nextTokenLogits(gone, inputs), MODEL);
  cache[Symbol.dispose]();
  await assert.rejects(generateTokenKvCaching(model, { inputIds: next, cache }), CACHE);
  await assert.rejects(cache.read(0, 0), CACHE);
  await assert.rejects(decodeStep(model, generation), CACHE);
  const [row] = cache.rows;
  for (
    const use of [
      () => cache.admit({ slots: [1] }),
      () => cache.release(row),
      () => cache.rewind(row, 0),
      () => cache.fork(row),
      () => cache.reserve([row], [99]),
    ]
  ) {
    assert.throws(use, CACHE);
  }
  assert.throws(() => Runner.of(gone), MODEL);
  await assert.rejects(kept.logits(cache, [{ row, tokens: [1] }]), MODEL);
  assert.throws(() => kept.stepFunction([{ row, tokens: [1] }]), MODEL);
  assert.ok(tf.memory().numTensors <= before, "and the cache's are gone");
});

testOnEach(
  backends,
  "the step that is under way when all is disposed of ends well, and no other begins",
  async (backend) => {
    using model = await load(backend);
    const [{ tokens }] = await generateBatch(model, inputs, { maxTokens: 2, ignoreEos: true });
    const before = tf.memory().numTensors, other = await load(backend);
    const generation = await prefill(other, inputs, { maxTokens: 9, ignoreEos: true });
    const step = decodeStep(other, generation), whole = generateBatch(other, inputs, { maxTokens: 9, ignoreEos: true });
    for (const one of [generation, other]) one[Symbol.dispose]();
    const [{ tokens: [token] }] = await Promise.all([step, assert.rejects(whole, MODEL)]);
    assert.equal(token, tokens[1]);
    assert.equal(tf.memory().numTensors, before);
  },
);

Deno.test({
  name: "a captured function may be disposed of twice, ends what it is doing, and is refused then",
  ignore: !backends.working.some(({ name }) => name === "tensorflow"),
  async fn() {
    const tensorflow = await openTensorflow(), x = tf.scalar(3);
    const square = tensorflow.capture([x], ([x]) => [tf.square(x)]);
    const run = square.run([x]);
    for (let i = 0; i < 2; i++) square.dispose();
    const [y] = await run;
    assert.equal(y.dataSync()[0], 9);
    await assert.rejects(square.run([x]), /Cannot use this captured function: it was disposed of/);
    tf.dispose([x, y]);
  },
});

Deno.test("the model without a cache may be disposed of twice, and is refused then", async () => {
  const before = tf.memory().numTensors, plain = await PlainGPT2.fromPretrained(folder);
  const batch = { inputIds: [[1]], positionIds: [[0]], mask: [[[0]]] }, answer = plain.forward(batch);
  for (let i = 0; i < 2; i++) plain[Symbol.dispose]();
  assert.equal((await answer).logits[0].length, 1);
  await assert.rejects(plain.forward(batch), MODEL);
  assert.equal(tf.memory().numTensors, before);
});

Deno.test("a safetensors file may be closed twice", async () => {
  const file = await openSafetensors(`${folder}/model.safetensors`);
  for (let i = 0; i < 2; i++) file[Symbol.dispose]();
  await assert.rejects(file.readFloat32("wpe.weight"), /it was closed/);
});
