import assert from "node:assert/strict";
import { useBackend } from "../lib/backend/select.ts";
import { padBatch, realTokens } from "../lib/tokenizer/batch.ts";
import * as tf from "@tensorflow/tfjs";
import type { Parallelism } from "../lib/backend/types.ts";
import { sweep, timeDecodeSteps, timeGeneration } from "../lib/bench/measure.ts";
import { profileStep } from "../lib/bench/profile.ts";
import { timeLinear, timeReading } from "../lib/bench/roofline.ts";
import { generateBatch, generateSteps, generateTokenKvCaching } from "../lib/engine/generate.ts";
import { generateStepsWithoutCache } from "../lib/engine/without_cache.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { KvCache } from "../lib/engine/kv_cache.ts";
import { Runner } from "../lib/engine/runner.ts";
import { parallelismFor, waysToSpread } from "../lib/engine/parallelism.ts";
import { assertClose } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const backend = await useBackend("tensorflow");
const SHAPE = { rows: 2, inputs: 8, outputs: 16 };
const model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });

const cores = navigator.hardwareConcurrency;
const inputs = padBatch(
  Array.from({ length: 7 }, (_, i) => Array.from({ length: 1 + 3 * i }, (_, j) => (5 * i + 7 * j) % 97)),
  { padTokenId: 0 },
);

Deno.test("answers do not depend on lanes and threads", async () => {
  const prompts = realTokens(inputs, { vocabSize: 97 });
  /** Also in more lanes than there are cores, which the public functions refuse. */
  const answersOf = async (parallelism: Parallelism) => {
    using cache = new KvCache(model, parallelism);
    const rows = cache.admit({ slots: prompts.map(({ length }) => length) });
    const ids: number[][] = [], logprobs: number[] = [];
    for (let i = 0; i < 40; i++) {
      const feeds = rows.map((row, r) => ({ row, tokens: i ? [ids[i - 1][r]] : prompts[r] }));
      const next = await Runner.of(model).step(cache, feeds, { logprobs: true });
      ids.push(next.map(({ id }) => id));
      logprobs.push(...next.map(({ logprob }) => logprob!));
    }
    return { ids, logprobs };
  };
  const expected = await answersOf({ lanes: 1, threads: 1 });
  for (const [lanes, threads] of [[1, 2], [2, 1], [3, 1], [7, 1], [16, 1]]) {
    const { ids, logprobs } = await answersOf({ lanes, threads });
    assert.deepEqual(ids, expected.ids, `${lanes} lanes of ${threads} threads`);
    assertClose(logprobs, expected.logprobs, 1e-4, `${lanes} lanes of ${threads} threads`);
  }
  const [first] = await generateBatch(model, inputs, { maxTokens: 40, ignoreEos: true });
  assert.deepEqual(first.tokens, expected.ids.map(([id]) => id));
});

Deno.test("whoever hands in lanes and threads hears what is wrong with them, and nothing is started", async () => {
  const batchSize = inputs.inputIds.length, before = tf.memory().numTensors;
  const doors: Record<string, (parallelism: Parallelism) => Promise<unknown>> = {
    generateBatch: (parallelism) => generateBatch(model, inputs, { maxTokens: 2, parallelism }),
    generateSteps: (parallelism) => generateSteps(model, inputs, { maxTokens: 2, parallelism }).next(),
    generateStepsWithoutCache: (parallelism) =>
      generateStepsWithoutCache(model, inputs, { maxTokens: 2, parallelism }).next(),
    generateTokenKvCaching: (parallelism) => generateTokenKvCaching(model, inputs, { parallelism }),
    timeGeneration: (parallelism) => timeGeneration(model, inputs, 2, parallelism),
    timeDecodeSteps: (parallelism) => timeDecodeSteps(model, batchSize, { parallelism }),
    profileStep: (parallelism) => profileStep(model, { batchSize, slots: 8, parallelism }),
    sweep: (parallelism) => sweep(model, { batchSizes: [1, batchSize], parallelism }),
  };
  const wrong: readonly (readonly [lanes: number, threads: number, message: RegExp])[] = [
    ...[0, -1, 1.5, NaN, Infinity, 1e11 + 0.5].map((lanes) => [lanes, 1, /lanes must be a whole number/] as const),
    ...[0, -1, 0.5, NaN, "2"].map((threads) => [1, threads as number, /threads must be a whole number/] as const),
    ...[[5000, 1], [1, 1e11], [cores, 2], [1, cores + 1]].map(([lanes, threads]) =>
      [lanes, threads, new RegExp(`this machine has ${cores} core`)] as const
    ),
  ];
  for (const [name, call] of Object.entries(doors)) {
    for (const [lanes, threads, message] of wrong) {
      await assert.rejects(call({ lanes, threads }), { name: "RangeError", message }, `${name} ${lanes} × ${threads}`);
    }
  }
  assert.equal(tf.memory().numTensors, before);
  for (const call of [timeReading.bind(null, backend, 4096), timeLinear.bind(null, backend, SHAPE)]) {
    for (const [lanes, threads, message] of wrong) {
      await assert.rejects(call({ parallelism: { lanes, threads } }), { name: "RangeError", message });
    }
  }
});

Deno.test({
  name: "more lanes than rows are refused; a sweep uses them from the size on that has the rows",
  ignore: cores < 2,
  async fn() {
    const one = padBatch([[1, 2, 3]], { padTokenId: 0 }), parallelism = { lanes: 2, threads: 1 };
    await assert.rejects(generateBatch(model, one, { maxTokens: 2, parallelism }), {
      name: "RangeError",
      message: "Cannot divide 1 row into 2 lanes: each needs a row. Use 1 or fewer.",
    });
    await assert.rejects(sweep(model, { batchSizes: [1], parallelism }), /Cannot divide 1 row into 2 lanes/);
    const { points } = await sweep(model, { batchSizes: [1, 3], maxTokens: 2, warmup: 0, repeats: 1, parallelism });
    assert.deepEqual(points.map(({ lanes, threadsPerLane }) => [lanes, threadsPerLane]), [[1, 1], [2, 1]]);
  },
});

Deno.test("the ways to spread a batch use all threads, or one, and never more lanes than rows", () => {
  const ways = (threads: number, rows: number) => waysToSpread(threads, rows).map((way) => [way.lanes, way.threads]);
  assert.deepEqual(ways(1, 8), [[1, 1]]);
  assert.deepEqual(ways(2, 1), [[1, 2], [1, 1]]);
  assert.deepEqual(ways(2, 2), [[1, 2], [2, 1], [1, 1]]);
  assert.deepEqual(ways(8, 4), [[1, 8], [2, 4], [4, 2], [1, 1]]);
  assert.deepEqual(ways(6, 64), [[1, 6], [2, 3], [6, 1], [1, 1]]);
});

Deno.test("a plan is followed at the nearest batch size", () => {
  Runner.of(model).plan = [{ batchSize: 1, lanes: 1, threads: 2 }, { batchSize: 16, lanes: 2, threads: 1 }];
  const chosen = (size: number) => parallelismFor(model, size);
  assert.deepEqual([chosen(1), chosen(3)], Array(2).fill({ lanes: 1, threads: 2 }));
  assert.deepEqual([chosen(5), chosen(500)], Array(2).fill({ lanes: 2, threads: 1 }));
  Runner.of(model).plan = [{ batchSize: 4, lanes: 4, threads: 1 }];
  assert.equal(chosen(2).lanes, 2);
  Runner.of(model).plan = [];
});
