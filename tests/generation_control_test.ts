/** Sampling and what ends an answer, through the engine: seeds, several answers, stop texts, log-probabilities of prompts. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { generateBatch, type GenerateOptions, generateSteps } from "../lib/engine/generate.ts";
import type { AnswerOptions } from "../lib/engine/request.ts";
import { generateStepsWithoutCache } from "../lib/engine/without_cache.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import { seededRandom } from "../lib/util/random.ts";
import { compiledByXla, testOnEach, workingBackends } from "./_support/backends.ts";
import { assertDrawn } from "./_support/draws.ts";
import { assertClose, logitsOf } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const backends = await workingBackends();
const folder = await writeTinyModel({ seed: 1, config: { eos_token_id: 7 } });
const tokenizer = await AutoTokenizer.fromPretrained("models/small");
const batchOf = (rows: readonly (readonly number[])[]) => padBatch(rows, { padTokenId: 0 });

/** Settings of every kind, one for each row. */
const KINDS: Partial<AnswerOptions>[] = [
  {},
  { temperature: 1, seed: 1 },
  { temperature: 0.7, topK: 5, seed: 2 },
  { temperature: 1.3, topP: 0.8, seed: 3 },
  { temperature: 1, minP: 0.1, seed: 4, filterOrder: "huggingface" },
  { temperature: 0.9, repetitionPenalty: 1.3, presencePenalty: 0.5, frequencyPenalty: 0.4, seed: 5 },
  { temperature: 1, logitBias: { 3: 5, 4: -100 }, minTokens: 6, seed: 6 },
  { presencePenalty: 1, maxTokens: 5 },
  { temperature: 0.8, topK: 20, topP: 0.9, minP: 0.02, stopIds: [11, 12], seed: 7 },
];

function randomPrompts(count: number, seed: number): number[][] {
  const random = seededRandom(seed);
  return Array.from(
    { length: count },
    () => Array.from({ length: 1 + Math.floor(random() * 20) }, () => Math.floor(random() * 97)),
  );
}

testOnEach(
  backends,
  "rows of all settings in one batch get what their seeds ask for, alone and together",
  async (backend) => {
    using model = await loadGPT2(folder, { backend });
    const prompts = randomPrompts(KINDS.length, 1), options: GenerateOptions = { maxTokens: 16, logprobs: true };
    const together = await generateBatch(model, batchOf(prompts), { ...options, rows: KINDS });
    let ties = 0, tokens = 0;
    for (const [i, kind] of KINDS.entries()) {
      const [alone] = await generateBatch(model, batchOf([prompts[i]]), { ...options, ...kind });
      assert.deepEqual(together[i].tokens, alone.tokens, `row ${i}`);
      assert.equal(together[i].finishReason, alone.finishReason, `row ${i}`);
      assertClose(together[i].logprobs!, alone.logprobs!, 1e-3, `row ${i}`);
      ties += await assertDrawn(model, prompts[i], kind, together[i]);
      tokens += alone.tokens.length;
    }
    assert.ok(ties <= 0.05 * tokens, `${ties} ties of ${tokens}`);
    const otherSeed = await generateBatch(model, batchOf([prompts[1]]), { ...options, temperature: 1, seed: 100 });
    assert.notDeepEqual(otherSeed[0].tokens, together[1].tokens, "control");
  },
);

Deno.test("compiled by XLA: rows of all settings in one batch get what they get on libtensorflow", async () => {
  const [backend] = backends.working, compiled = await compiledByXla();
  await tf.setBackend(backend.name);
  const prompts = randomPrompts(KINDS.length, 1), options: GenerateOptions = { maxTokens: 6, rows: KINDS };
  using model = await loadGPT2(folder, { backend });
  using other = await loadGPT2(folder, { backend: compiled });
  const expected = await generateBatch(model, batchOf(prompts), options);
  assert.deepEqual(await generateBatch(other, batchOf(prompts), options), expected);
});

testOnEach(backends, "a model's answers are the same without the cache, sampled ones too", async (backend) => {
  using model = await loadGPT2(folder, { backend });
  // No draw of these is a tie: logits that are off by 1e-4 change no token. (With seed 2 two words weigh the same to six digits.)
  const inputs = batchOf(randomPrompts(4, 3)), options: GenerateOptions = { maxTokens: 8, rows: KINDS.slice(1, 5) };
  const steps = generateStepsWithoutCache(model, inputs, options);
  let last = await steps.next();
  while (!last.done) last = await steps.next();
  assert.deepEqual(last.value, await generateBatch(model, inputs, options));
});

testOnEach(
  backends,
  "n answers come from one prefill: each as its own request, and different ones",
  async (backend) => {
    using model = await loadGPT2(folder, { backend });
    const prompts = randomPrompts(2, 3),
      options: GenerateOptions = { maxTokens: 10, temperature: 1, seed: 9, ignoreEos: true };
    const answers = await generateBatch(model, batchOf(prompts), { ...options, n: 3 });
    assert.equal(answers.length, 6);
    assert.equal(new Set(answers.map(({ tokens }) => tokens.join())).size, 6);
    const again = await generateBatch(model, batchOf(prompts.slice(1)), { ...options, n: 2 });
    assert.deepEqual(again.map(({ tokens }) => tokens), answers.slice(3, 5).map(({ tokens }) => tokens));
    assert.deepEqual(answers.map(({ seed }) => seed), Array(6).fill(9));
    const seeds = (await generateBatch(model, batchOf(prompts), { ...options, seed: undefined, n: 2 })).map((row) =>
      row.seed
    );
    assert.deepEqual([seeds[0], seeds[2]], [seeds[1], seeds[3]], "one seed for all answers to a prompt");
    assert.notEqual(seeds[0], seeds[2]);
  },
);

testOnEach(backends, "log-probabilities of a prompt are those of its tokens, also in chunks", async (backend) => {
  using model = await loadGPT2(folder, { backend });
  const prompts = [randomPrompts(1, 4)[0].concat(1, 2, 3), [5], randomPrompts(1, 5)[0]];
  const answers = await generateBatch(model, batchOf(prompts), { maxTokens: 2, promptLogprobs: true, topLogprobs: 3 });
  for (const [i, prompt] of prompts.entries()) {
    const logits = await logitsOf(model, prompt.map((_, end) => prompt.slice(0, end + 1)));
    const logprob = (row: number[], id: number) => row[id] - Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
    assertClose(
      answers[i].promptLogprobs!,
      prompt.slice(1).map((id, t) => logprob(logits[t], id)),
      1e-3,
      `prompt ${i}`,
    );
    const last = logits.at(-1)!, best = [...last.keys()].sort((a, b) => last[b] - last[a]).slice(0, 3);
    assert.deepEqual(answers[i].topLogprobs![0].map(({ id }) => id), best);
    assertClose(
      answers[i].topLogprobs![0].map(({ logprob }) => logprob),
      best.map((id) => logprob(last, id)),
      1e-3,
      "top",
    );
    const { tokens, logprobs, topLogprobs, promptTopLogprobs } = answers[i];
    assert.equal(promptTopLogprobs!.length, prompt.length - 1);
    for (const [t, top] of promptTopLogprobs!.entries()) {
      const likeliest = [...logits[t].keys()].sort((a, b) => logits[t][b] - logits[t][a]).slice(0, 3);
      assert.deepEqual(top.map(({ id }) => id), likeliest, `prompt ${i}, token ${t + 1}`);
    }
    assert.deepEqual(topLogprobs!.map(([best]) => best), tokens.map((id, t) => ({ id, logprob: logprobs![t] })));
  }
});

Deno.test("a stop text ends an answer before it, nothing of it is streamed, and other rows go on", async () => {
  const [backend] = backends.working;
  await tf.setBackend(backend.name);
  using model = await loadGPT2("models/small", { backend });
  const prompts = ["The quick brown fox jumped over the", "What comes up must"];
  const inputs = tokenizer(prompts, { padding: true }), options: GenerateOptions = { maxTokens: 24, tokenizer };
  const [plain] = await generateBatch(model, inputs, options);
  assert.equal(plain.text, tokenizer.decode(plain.tokens));
  const stop = plain.text!.slice(20, 24);
  const steps = generateSteps(model, inputs, { ...options, stop, logprobs: true });
  let streamed = "", next = await steps.next();
  for (; !next.done; next = await steps.next()) streamed += next.value.texts[0];
  const [stopped, other] = next.value, cut = plain.text!.slice(0, plain.text!.indexOf(stop));
  assert.deepEqual([stopped.text, streamed, stopped.finishReason], [cut, cut, "stop"]);
  assert.ok(tokenizer.decode(stopped.tokens).startsWith(cut));
  assert.ok(!tokenizer.decode(stopped.tokens.slice(0, -1)).startsWith(cut), "no token more than the text needs");
  assert.equal(stopped.logprobs!.length, stopped.tokens.length);
  assert.ok(other.tokens.length === 24 || other.text!.length < 200);
  await assert.rejects(generateBatch(model, inputs, { maxTokens: 2, stop: "x" }), /without a tokenizer/);
});

testOnEach(
  backends,
  "a token that ends an answer is its last, minTokens holds it off, and ended rows leave",
  async (backend) => {
    using model = await loadGPT2(folder, { backend });
    const prompts = randomPrompts(3, 6), options: GenerateOptions = { maxTokens: 12, ignoreEos: true };
    const plain = await generateBatch(model, batchOf(prompts), options), end = plain[0].tokens[2];
    const stopped = await generateBatch(model, batchOf(prompts), { ...options, stopIds: [end] });
    for (const [i, { tokens, finishReason }] of stopped.entries()) {
      const length = plain[i].tokens.indexOf(end) + 1 || 12;
      assert.deepEqual(tokens, plain[i].tokens.slice(0, length));
      assert.equal(finishReason, plain[i].tokens.includes(end) ? "stop" : "length");
    }
    const later = await generateBatch(model, batchOf(prompts.slice(0, 1)), {
      ...options,
      stopIds: [end],
      minTokens: 8,
    });
    assert.ok(later[0].tokens.length >= 8 && !later[0].tokens.slice(0, 7).includes(end));
  },
);

testOnEach(backends, "an aborted signal is heard between two steps", async (backend) => {
  using model = await loadGPT2(folder, { backend });
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Error("enough")), 0);
  const options = { maxTokens: 70, ignoreEos: true, signal: controller.signal };
  let steps = 0;
  await assert.rejects(async () => {
    for await (const _ of generateSteps(model, batchOf(randomPrompts(3, 7)), options)) steps++;
  }, /enough/);
  clearTimeout(timer);
  assert.ok(steps < 70);
});

Deno.test("options that cannot be are refused before anything runs", async () => {
  const [backend] = backends.working;
  await tf.setBackend(backend.name);
  using model = await loadGPT2(folder, { backend });
  const before = tf.memory().numTensors;
  const wrong: [Partial<GenerateOptions>, RegExp][] = [
    [{ n: 0 }, /n 0: it must be a whole number from 1 up/],
    [{ topLogprobs: -1 }, /topLogprobs -1/],
    [{ temperature: -1 }, /temperature -1/],
    [{ stopIds: [97] }, /stop at token 97: the model has tokens 0 to 96/],
    [{ rows: [{ topP: 2 }] }, /topP 2/],
    [{ rows: [{ maxTokens: 1000 }] }, /Cannot generate 1000 tokens/],
    [{ stop: "", tokenizer }, /it is empty/],
  ];
  for (const [options, message] of wrong) {
    await assert.rejects(generateBatch(model, batchOf([[1, 2]]), { maxTokens: 3, ...options }), message);
  }
  assert.equal(tf.memory().numTensors, before);
});
