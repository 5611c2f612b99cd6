/** The steps that XLA compiles for GPUs, on the CPU, where every machine can run them: the same code, the same answers. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { plainOps } from "../lib/backend/plain.ts";
import { useBackend } from "../lib/backend/select.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { generateBatch, generateTokenKvCaching } from "../lib/engine/generate.ts";
import { Runner } from "../lib/engine/runner.ts";
import type { GPT2 } from "../lib/gpt2/model.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import type { Dtype } from "../lib/backend/ops.ts";
import { openTensorflow } from "../lib/tensorflow/tfjs/backend.ts";
import { tensorflowOnGpu } from "../lib/tensorflow/gpu.ts";
import { assertClose } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const plain = await useBackend("tensorflow"), compiled = await tensorflowOnGpu(await openTensorflow());
const folder = await writeTinyModel({ seed: 1 });
const prompts = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]];
const OPTIONS = { maxTokens: 12, ignoreEos: true };

Deno.test("steps compiled by XLA generate what steps of single operations do, from padded prompts and beyond a bucket", async () => {
  assert.match(compiled.description, /compiled by XLA/);
  using one = await loadGPT2(folder, { backend: plain });
  using other = await loadGPT2(folder, { backend: compiled });
  const options = { maxTokens: 20, ignoreEos: true, logprobs: true };
  for (const rows of [prompts, prompts.slice(1, 2)]) { // the same captured steps, for other shapes
    const inputs = padBatch(rows, { padTokenId: 0 });
    const wanted = await generateBatch(one, inputs, options), got = await generateBatch(other, inputs, options);
    for (const [i, { tokens, logprobs }] of wanted.entries()) {
      assert.deepEqual(got[i].tokens, tokens);
      assertClose(got[i].logprobs!, logprobs!, 1e-4, `row ${i} of ${rows.length}`);
    }
  }
});

Deno.test("where XLA cannot compile, the same operations run one by one", async () => {
  const without = await tensorflowOnGpu(await openTensorflow(), false);
  assert.match(without.description, /without XLA/);
  using one = await loadGPT2(folder, { backend: plain });
  using other = await loadGPT2(folder, { backend: without });
  const rows = [{}, { temperature: 0.8, seed: 3 }, { maxTokens: 3 }];
  for (const options of [OPTIONS, { ...OPTIONS, logprobs: true, rows }]) {
    const inputs = padBatch(prompts, { padTokenId: 0 });
    const wanted = await generateBatch(one, inputs, options), got = await generateBatch(other, inputs, options);
    for (const [i, { tokens, logprobs }] of wanted.entries()) {
      assert.deepEqual(got[i].tokens, tokens);
      if (logprobs) assertClose(got[i].logprobs!, logprobs, 1e-4, `row ${i}`);
    }
  }
  await assert.rejects(loadGPT2(folder, { backend: without, dtype: "bfloat16" }), /it has float32/);
});

Deno.test("layer norm within the weights after it is layer norm before them, of one row and of several", () => {
  tf.tidy(() => {
    const [K, M] = [24, 40],
      random = (shape: number[], mean: number, seed: number) => tf.randomNormal(shape, mean, 1, "float32", seed);
    const rows = random([3, K], 5, 1) as tf.Tensor2D, weight = random([K, M], 0, 2) as tf.Tensor2D;
    const norm = { weight: random([K], 1, 3) as tf.Tensor1D, bias: random([K], 1, 4) as tf.Tensor1D, epsilon: 1e-5 };
    const bias = random([M], 0, 5) as tf.Tensor1D, values = (x: tf.Tensor) => Array.from(x.dataSync());
    for (const [dtype, tolerance] of [["float32", 1e-4], ["bfloat16", 0.25]] as const) {
      const options = { name: "test", activation: "gelu_new", dtype } as const;
      const normed = compiled.ops.normedLinear!(norm, weight.clone(), bias.clone(), options);
      const bare = compiled.ops.linear(weight.clone(), bias.clone(), options);
      for (const x of [rows, tf.slice(rows, [1, 0], [1, -1])]) {
        const input = plainOps.layerNorm(x, norm.weight, norm.bias, norm.epsilon);
        const wanted = values(plainOps.linear(weight, bias, options).apply(input));
        const check = (got: tf.Tensor) => assertClose(values(got), wanted, tolerance, `${dtype}, ${x.shape[0]} rows`);
        check(normed.apply(x));
        assert.throws(() => check(bare.apply(x)), "the control");
      }
      for (const layer of [normed, bare]) layer.dispose();
    }
  });
});

Deno.test("a compiled step leaves the cache as steps of single operations do, also when it has grown", async () => {
  const caches = [];
  for (const backend of [plain, compiled]) {
    using model = await loadGPT2(folder, { backend });
    const first = await generateTokenKvCaching(model, padBatch(prompts, { padTokenId: 0 }));
    using cache = first.cache;
    let ids = first.nextTokenIds;
    for (let i = 0; i < 12; i++) {
      ({ nextTokenIds: ids } = await generateTokenKvCaching(model, { inputIds: ids.map((id) => [id]), cache }));
    }
    caches.push(await Promise.all(prompts.map((_, row) => cache.read(row, 1))));
  }
  const [wanted, got] = caches;
  for (const [row, { keys, values }] of wanted.entries()) {
    assertClose(got[row].keys.flat(), keys.flat(), 1e-4, `keys of row ${row}`);
    assertClose(got[row].values.flat(), values.flat(), 1e-4, `values of row ${row}`);
  }
});

Deno.test("bfloat16 weights in compiled steps are close to float32 ones; int8 ones are refused", async () => {
  const logprobs = async (dtype: Dtype) => {
    using model = await loadGPT2(folder, { backend: compiled, dtype });
    const options = { maxTokens: 1, ignoreEos: true, logprobs: true };
    const answers = await generateBatch(model, padBatch(prompts, { padTokenId: 0 }), options);
    return answers.flatMap(({ logprobs }) => logprobs!);
  };
  const float32 = await logprobs("float32"), bfloat16 = await logprobs("bfloat16");
  assertClose(bfloat16, float32, 0.02, "log-probabilities");
  assert.notDeepEqual(bfloat16, float32);
  await assert.rejects(logprobs("int8"), /Cannot use int8 on the tensorflow backend: it has float32, bfloat16/);
});

Deno.test("steps that are started one after another give each row the tokens that single steps do, however many each wants", async () => {
  using one = await loadGPT2(folder, { backend: plain });
  using other = await loadGPT2(folder, { backend: compiled });
  const rows = [{ maxTokens: 9 }, { maxTokens: 40 }, { maxTokens: 3 }];
  const inputs = padBatch(prompts, { padTokenId: 0 }), options = { maxTokens: 40, ignoreEos: true, rows };
  const tokens = async (model: GPT2) => (await generateBatch(model, inputs, options)).map(({ tokens }) => tokens);
  const wanted = await tokens(one), before = Runner.of(other).captures;
  assert.deepEqual(await tokens(other), wanted);
  assert.deepEqual(wanted.map(({ length }) => length), [9, 40, 3]);
  assert.equal(Runner.of(other).captures - before, 3, "a prefill, and steps of several rows and of one");
});

Deno.test("steps that follow each other move the positions of every bucket", async () => {
  const apart = { ...compiled, cachePolicy: { ...compiled.cachePolicy, bucketCost: 0 } };
  using one = await loadGPT2(folder, { backend: plain });
  using other = await loadGPT2(folder, { backend: apart });
  const long = Array.from({ length: 40 }, (_, i) => i + 1), inputs = padBatch([...prompts, long], { padTokenId: 0 });
  const tokens = async (model: GPT2) => (await generateBatch(model, inputs, OPTIONS)).map(({ tokens }) => tokens);
  assert.deepEqual(await tokens(other), await tokens(one));
});

Deno.test("several answers to one prompt are rows that were copied within the cache, and sampled as by single operations", async () => {
  using one = await loadGPT2(folder, { backend: plain });
  using other = await loadGPT2(folder, { backend: compiled });
  const inputs = padBatch(prompts.slice(0, 2), { padTokenId: 0 });
  const options = { maxTokens: 6, ignoreEos: true, n: 2, temperature: 0.8, seed: 3 };
  const wanted = await generateBatch(one, inputs, options), got = await generateBatch(other, inputs, options);
  assert.deepEqual(got.map(({ tokens }) => tokens), wanted.map(({ tokens }) => tokens));
  assert.notDeepEqual(wanted[0].tokens, wanted[1].tokens);
});

Deno.test("a cache is where the last one of its size was, and what that held is not seen", async () => {
  using model = await loadGPT2(folder, { backend: compiled });
  const inputs = padBatch(prompts, { padTokenId: 0 }), reversed = padBatch(prompts.toReversed(), { padTokenId: 0 });
  const run = async (batch: typeof inputs) => {
    const { cache, nextTokenIds } = await generateTokenKvCaching(model, batch);
    const [{ bucket }] = cache.rows, places = bucket.tensors.caches.flat().map(({ dataId }) => dataId);
    cache[Symbol.dispose]();
    return { places, nextTokenIds };
  };
  const first = await run(inputs), second = await run(reversed), third = await run(padBatch([[1]], { padTokenId: 0 }));
  assert.deepEqual(second.nextTokenIds, first.nextTokenIds.toReversed());
  assert.ok(second.places.every((place, i) => place === first.places[i]));
  assert.ok(third.places.every((place) => !first.places.includes(place)), "another size");
});

Deno.test("compiled steps leave no tensors behind", async () => {
  using model = await loadGPT2(folder, { backend: compiled });
  const inputs = padBatch(prompts, { padTokenId: 0 });
  const generate = () => generateBatch(model, inputs, { maxTokens: 4, ignoreEos: true });
  await generate();
  const before = tf.memory().numTensors;
  for (let i = 0; i < 5; i++) await generate();
  assert.equal(tf.memory().numTensors, before);
});
