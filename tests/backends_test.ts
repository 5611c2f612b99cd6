/** The same answers on every backend that this machine has. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import type { Backend } from "../lib/backend/types.ts";
import { type Batch, padBatch } from "../lib/tokenizer/batch.ts";
import { generateBatch, type GenerateOptions, generateTokenKvCaching } from "../lib/engine/generate.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { seededRandom } from "../lib/util/random.ts";
import { testOnEach, workingBackends } from "./_support/backends.ts";
import golden from "./fixtures/small_golden.json" with { type: "json" };
import { assertClose, distance, logitsOf } from "./_support/logits.ts";
import { TINY, writeTinyModel } from "./_support/tiny_models.ts";

const backends = await workingBackends();
const TOLERANCE = 2e-4;
/** The backends that are not libtensorflow have one slow core each: they get fewer cases. */
const cases = ({ name }: Backend, most: number) => name === "tensorflow" ? most : Math.ceil(most / 4);

const folders = [
  await writeTinyModel({ seed: 1 }),
  // heads of 6 numbers, widths that are no multiples of 4
  await writeTinyModel({ seed: 2, config: { n_embd: 18, n_layer: 3, n_head: 3, n_inner: 30, vocab_size: 131 } }),
];

/** Batches of 1 to 20 prompts of 1 to 60 tokens. */
function* randomBatches(seed: number, count: number): Generator<number[][]> {
  const random = seededRandom(seed), upTo = (n: number) => 1 + Math.floor(random() * n);
  for (let i = 0; i < count; i++) {
    yield Array.from({ length: upTo(20) }, () => Array.from({ length: upTo(60) }, () => upTo(TINY.vocab_size) - 1));
  }
}

/** Tokens equal up to the first step where the reference itself was undecided, log-probabilities close until there. */
function assertGolden(answer: { tokens: number[]; logprobs?: number[] }, i: number, what: string) {
  const { tokens, logprobs, margins } = golden[i], undecided = margins.findIndex((margin) => margin <= 1e-3);
  const sure = undecided < 0 ? tokens.length : undecided;
  assert.deepEqual(answer.tokens.slice(0, sure), tokens.slice(0, sure), `${what}, prompt ${i}`);
  assertClose(answer.logprobs!.slice(0, sure), logprobs.slice(0, sure), 2e-3, `${what}, prompt ${i}`);
}

testOnEach(backends, "the shipped model gives the reference's answers", async (backend) => {
  using model = await loadGPT2("models/small", { backend });
  const chosen = golden.slice(0, cases(backend, golden.length)).map((row) => row.promptTokens);
  const options: GenerateOptions = { maxTokens: 24, ignoreEos: true, logprobs: true };
  const together = await generateBatch(model, padBatch(chosen, { padTokenId: 50256 }), options);
  together.forEach((answer, i) => assertGolden(answer, i, "in one batch"));
  for (const [i, prompt] of chosen.slice(0, 2).entries()) {
    const [alone] = await generateBatch(model, padBatch([prompt], { padTokenId: 0 }), options);
    assertGolden(alone, i, "alone");
  }
});

testOnEach(backends, "a prompt's logits are the same in any batch as alone", async (backend) => {
  for (const [m, folder] of folders.entries()) {
    using model = await loadGPT2(folder, { backend });
    for (const rows of randomBatches(1 + m, cases(backend, 12))) {
      const together = await logitsOf(model, rows);
      for (const [i, row] of rows.entries()) {
        assertClose(
          together[i],
          (await logitsOf(model, [row]))[0],
          TOLERANCE,
          `model ${m}, row ${i} of ${rows.length}`,
        );
      }
    }
  }
});

testOnEach(backends, "steps with the cache give what the whole text gives without it", async (backend) => {
  for (const [m, folder] of folders.entries()) {
    using model = await loadGPT2(folder, { backend });
    for (const rows of randomBatches(5 + m, cases(backend, 4))) {
      const prompts = rows.map((row) => row.slice(0, 30)), options = { maxTokens: 20, ignoreEos: true, logprobs: true };
      const answers = await generateBatch(model, padBatch(prompts, { padTokenId: 0 }), options);
      for (const step of [0, 1, 7, 16, 19]) {
        const uncached = await logitsOf(model, prompts.map((row, i) => [...row, ...answers[i].tokens.slice(0, step)]));
        for (const [i, logits] of uncached.entries()) {
          const largest = Math.max(...logits),
            token = answers[i].tokens[step],
            what = `model ${m}, step ${step}, row ${i}`;
          assert.ok(logits[token] > largest - TOLERANCE, what);
          const logprob = -Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
          assertClose([answers[i].logprobs![step]], [logprob], TOLERANCE, what);
        }
      }
    }
  }
});

testOnEach(
  backends,
  "a cache that grows on the way gives what one gives that was large from the start",
  async (backend) => {
    using model = await loadGPT2(folders[0], { backend });
    const run = async (maxTokens?: number) => {
      const prompts = padBatch([[1, 2, 3], [4]], { padTokenId: 0 });
      let { nextTokenIds, cache } = await generateTokenKvCaching(model, prompts, { maxTokens });
      const ids = [nextTokenIds], slots = new Set(cache.rows.map(({ bucket }) => bucket.slots));
      for (let i = 0; i < 40; i++) {
        ({ nextTokenIds, cache } = await generateTokenKvCaching(model, { inputIds: ids[i].map((id) => [id]), cache }));
        ids.push(nextTokenIds);
        for (const { bucket } of cache.rows) slots.add(bucket.slots);
      }
      cache[Symbol.dispose]();
      return { ids, slots: [...slots] };
    };
    const grown = await run(), large = await run(41);
    assert.deepEqual(grown.slots, [16, 32, 48]);
    assert.deepEqual(large.slots, backend.cachePolicy.emptySlotsAreFree ? [48] : [16, 32, 48]);
    assert.deepEqual(grown.ids, large.ids);
  },
);

testOnEach(backends, "op by op gives what captured steps give, for every type of weights", async (backend) => {
  const rows = [[1, 2, 3, 4, 5], [6, 7], [8]];
  using wide = await loadGPT2(folders[1], { backend });
  const exact = await logitsOf(wide, rows);
  for (const dtype of backend.dtypes) {
    const before = tf.memory().numTensors;
    {
      using model = await loadGPT2(folders[1], { backend, dtype });
      const onlyCaptured = ["webgpu", "onednn"].includes(backend.name); // they make kernels for whole steps only
      const opByOpBackend = onlyCaptured ? backend : Object.create(backend, { capture: {} });
      using plain = await loadGPT2(folders[1], { backend: opByOpBackend, dtype });
      const captured = await logitsOf(model, rows), opByOp = await logitsOf(plain, rows);
      const alone = [];
      for (const row of rows) alone.push((await logitsOf(model, [row]))[0]);
      for (const i of rows.keys()) {
        const spread = Math.max(...exact[i]) - Math.min(...exact[i]);
        const same = dtype === "float32" ? TOLERANCE : 0.02 * spread;
        assertClose(captured[i], opByOp[i], same, `${dtype}, row ${i}, captured and op by op`);
        assertClose(captured[i], alone[i], same, `${dtype}, row ${i}, in the batch and alone`);
        assertClose(captured[i], exact[i], dtype === "float32" ? TOLERANCE : 0.1 * spread, `${dtype}, row ${i}`);
        assert.ok(dtype === "float32" || distance(captured[i], exact[i]) > 1e-6, `${dtype} was really rounded`);
      }
    }
    assert.equal(tf.memory().numTensors, before, dtype);
  }
});

testOnEach(backends, "backends agree on the logits", async (backend) => {
  if (backend === backends.working[0]) return; // the others are compared with the first
  const rows = [...randomBatches(9, 1)][0];
  for (const folder of folders) {
    await tf.setBackend(backends.working[0].name);
    using first = await loadGPT2(folder, { backend: backends.working[0] });
    const expected = await logitsOf(first, rows);
    await tf.setBackend(backend.name);
    using model = await loadGPT2(folder, { backend });
    (await logitsOf(model, rows)).forEach((logits, i) => assertClose(logits, expected[i], TOLERANCE, `row ${i}`));
  }
});

testOnEach(
  backends,
  "generations leave the number of tensors and the resident memory where they were",
  async (backend) => {
    const before = tf.memory().numTensors;
    {
      using model = await loadGPT2(folders[0], { backend });
      const inputs: Batch = padBatch([[1, 2, 3, 4, 5], [6, 7]], { padTokenId: 0 });
      const generate = async (times: number) => {
        for (let i = 0; i < times; i++) await generateBatch(model, inputs, { maxTokens: 8, ignoreEos: true });
        return { tensors: tf.memory().numTensors, megabytes: Deno.memoryUsage().rss / 1e6 };
      };
      const warm = await generate(cases(backend, 200));
      const after = await generate(cases(backend, 400));
      assert.equal(after.tensors, warm.tensors);
      const slack = backend.name === "cpu" ? 200 : 30; // its tensors are JavaScript arrays, collected some time later
      assert.ok(after.megabytes < warm.megabytes + slack, `${warm.megabytes} -> ${after.megabytes} MB`);
    }
    assert.equal(tf.memory().numTensors, before);
  },
);

testOnEach(
  backends,
  "steps with tokens, rows or positions that cannot be are refused, and the cache is as it was",
  async (backend) => {
    using model = await loadGPT2(folders[0], { backend });
    const first = await generateTokenKvCaching(model, padBatch([[1, 2, 3], [4]], { padTokenId: 0 }));
    using cache = first.cache;
    const wrong: [unknown, RegExp][] = [
      [[[1], [2], [3]], /inputIds of 3 rows: the cache has 2/],
      [[[1]], /inputIds of 1 rows/],
      [null, /inputIds of no rows/],
      [[[1], []], /inputIds\[1\]: it must be an array of one or more tokens/],
      [[[1], 2], /inputIds\[1\]/],
      ...[97, -1, NaN, 1.5, null, "7", undefined, 1e300].map((id): [unknown, RegExp] => [
        [[1], [id]],
        /inputIds\[1\]\[0\]: it is .*\. Token ids are whole numbers from 0 to 96/,
      ]),
      [[Array(94).fill(1), [1]], /Cannot feed 94 tokens to row 0: it has 3 and the model holds 96/],
    ];
    const tensors = tf.memory().numTensors;
    for (const [inputIds, message] of wrong) {
      const step = generateTokenKvCaching(model, { inputIds: inputIds as number[][], cache });
      await assert.rejects(
        step,
        (error: Error) => error instanceof RangeError && message.test(error.message),
        `${inputIds}`,
      );
    }
    assert.equal(tf.memory().numTensors, tensors);
    assert.deepEqual(cache.lengths, [3, 1]);
    const tooLong = { inputIds: [Array(97).fill(1)], attentionMask: [Array(97).fill(1)] };
    await assert.rejects(generateTokenKvCaching(model, tooLong), /a prompt of 97 tokens: the model holds 96/);
    const one = generateTokenKvCaching(model, { inputIds: [[5], [6]], cache });
    const two = generateTokenKvCaching(model, { inputIds: [[5], [6]], cache });
    await assert.rejects(two, /Cannot run two steps on one cache at once/);
    const { nextTokenIds } = await one;
    assert.deepEqual(cache.lengths, [4, 2]);
    const [[a], [b]] = [await logitsOf(model, [[1, 2, 3, 5]]), await logitsOf(model, [[4, 6]])];
    assert.deepEqual(nextTokenIds, [a, b].map((row) => row.indexOf(Math.max(...row))));
    const full = await generateTokenKvCaching(model, {
      inputIds: [Array(96).fill(1)],
      attentionMask: [Array(96).fill(1)],
    });
    await assert.rejects(
      generateTokenKvCaching(model, { inputIds: [[1]], cache: full.cache }),
      /it has 96 and the model holds 96/,
    );
    full.cache[Symbol.dispose]();
  },
);
