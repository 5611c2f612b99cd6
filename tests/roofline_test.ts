import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { gpt2Config, type GPT2Size, parameterCount } from "../lib/gpt2/config.ts";
import { loadGPT2, randomGPT2 } from "../lib/gpt2/load.ts";
import { timeDecodeSteps } from "../lib/bench/measure.ts";
import { DTYPES } from "../lib/backend/ops.ts";
import {
  decodeStepCost,
  decodeStepParts,
  kneeBatchSize,
  measureRoofs,
  rooflineSeconds,
  timeLinear,
} from "../lib/bench/roofline.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const gpt2 = gpt2Config("gpt2");
const backend = await useBackend("tensorflow");

Deno.test("a step reads every weight but the position embedding and the layer norms once", () => {
  for (const size of ["distilgpt2", "gpt2", "gpt2-xl"] as GPT2Size[]) {
    const config = gpt2Config(size), parts = decodeStepParts(config, "float32", 1, 16);
    const weights = parts.filter(({ linear }) => linear).reduce((sum, { bytes }) => sum + bytes / 4, 0);
    const layerNorms = (2 * config.n_layer + 1) * 2 * config.n_embd;
    assert.equal(weights, parameterCount(config) - config.n_positions * config.n_embd - layerNorms);
  }
});

Deno.test("a linear layer's bytes are those of its dtype, and the cache's are float32's", () => {
  const bytes = (dtype: typeof DTYPES[number], name: string) =>
    decodeStepParts(gpt2, dtype, 4, 100).find((part) => part.name === name)!.bytes;
  for (const name of ["attn.c_attn", "mlp.c_fc", "head"]) {
    assert.deepEqual(DTYPES.map((dtype) => bytes("float32", name) / bytes(dtype, name)), [1, 2, 4], name);
  }
  assert.deepEqual(DTYPES.map((dtype) => bytes(dtype, "KV cache")), Array(3).fill(2 * 12 * 4 * 100 * 768 * 4));
});

Deno.test("at the knee, reading and arithmetic take equally long", () => {
  for (const dtype of DTYPES) {
    for (const roofs of [{ bandwidth: 30e9, flops: 400e9 }, { bandwidth: 3e12, flops: 67e12 }]) {
      const knee = kneeBatchSize(gpt2, dtype, 16, roofs), { bytes, flops } = decodeStepCost(gpt2, dtype, knee, 16);
      const ratio = bytes / roofs.bandwidth / (flops / roofs.flops);
      assert.ok(Math.abs(ratio - 1) < 1e-9, `${dtype}: ${ratio}`);
    }
  }
});

Deno.test("with a long cache every row brings more to read than to compute, and there is no knee", () => {
  const roofs = { bandwidth: 30e9, flops: 400e9 };
  assert.equal(kneeBatchSize(gpt2, "float32", 1000, roofs), Infinity);
  assert.equal(
    rooflineSeconds(decodeStepCost(gpt2, "float32", 4096, 1000), roofs),
    decodeStepCost(gpt2, "float32", 4096, 1000).bytes / 30e9,
  );
});

Deno.test("measuring gives positive roofs for every dtype and leaves no tensors behind", async () => {
  for (const dtype of backend.dtypes) {
    const before = tf.memory().numTensors;
    const { bandwidth, flops } = await measureRoofs(backend, { dtype, runs: 1 });
    assert.ok(bandwidth > 1e8 && bandwidth < 1e14 && flops > 1e8 && flops < 1e16, `${dtype}: ${bandwidth}, ${flops}`);
    assert.equal(tf.memory().numTensors, before, dtype);
  }
});

Deno.test("a linear layer can be timed in lanes, and on a backend that captures nothing", async () => {
  const shape = { rows: 3, inputs: 16, outputs: 32 }, before = tf.memory().numTensors;
  const { capture: _, ...eager } = backend;
  for (const where of [backend, eager]) {
    assert.ok(
      await timeLinear(where, shape, { parallelism: { lanes: navigator.hardwareConcurrency, threads: 1 }, runs: 2 }) >
        0,
    );
  }
  assert.equal(tf.memory().numTensors, before);
});

Deno.test("steps are timed after any context without prefill, and what does not fit is refused", async () => {
  const folder = await writeTinyModel({ seed: 1 });
  using model = await loadGPT2(folder, { backend });
  await timeDecodeSteps(model, 3, { context: 80, steps: 2 });
  const before = tf.memory().numTensors;
  const seconds = await timeDecodeSteps(model, 3, { context: 80, steps: 4 });
  assert.equal(seconds.length, 4);
  assert.ok(seconds.every((value) => value > 0));
  assert.equal(tf.memory().numTensors, before);
  await assert.rejects(timeDecodeSteps(model, 3, { context: 95, steps: 4 }), {
    name: "RangeError",
    message: /after 95 tokens: with the warm-up that makes 100 and the model holds 96\. Lower the context to 91\./,
  });
  await assert.rejects(timeDecodeSteps(model, 0), { message: /batchSize 0: it must be a whole number from 1 up/ });
});

Deno.test("a model that is all stops and no weights runs, in every dtype", async () => {
  const empty = { ...gpt2, n_embd: 24, n_inner: 96, vocab_size: 64 };
  for (const dtype of backend.dtypes) {
    using model = await randomGPT2(empty, { backend, dtype });
    assert.equal((await timeDecodeSteps(model, 2, { steps: 1 })).length, 1);
  }
});
