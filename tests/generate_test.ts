import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { type Batch, padBatch } from "../lib/tokenizer/batch.ts";
import {
  decodeStep,
  decodeSteps,
  generateBatch,
  type GenerateOptions,
  generateSteps,
  generateTokenKvCaching,
  prefill,
} from "../lib/engine/generate.ts";
import { Runner } from "../lib/engine/runner.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import golden from "./fixtures/small_golden.json" with { type: "json" };
import { assertClose, logitsOf } from "./_support/logits.ts";
import { TINY, writeTinyModel } from "./_support/tiny_models.ts";

const backend = await useBackend("tensorflow");
const small = await loadGPT2("models/small", { backend });
const smallOpByOp = await loadGPT2("models/small", { backend: { ...backend, capture: undefined } });
const tiny = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
const tokenizer = await AutoTokenizer.fromPretrained("models/small");

const prompts = golden.map(({ promptTokens }) => promptTokens);
const batchOf = (rows: number[][], side: "left" | "right" = "left") => padBatch(rows, { padTokenId: 50256, side });
const reference: GenerateOptions = { maxTokens: 24, ignoreEos: true, logprobs: true };

/** Tokens equal up to the first step where the reference itself was undecided, log-probabilities close until there. */
function assertGolden(answer: { tokens: number[]; logprobs?: number[] }, i: number, what: string) {
  const { tokens, logprobs, margins } = golden[i];
  const undecided = margins.findIndex((margin) => margin <= 1e-3);
  const sure = undecided < 0 ? tokens.length : undecided;
  assert.ok(sure > 0, "the reference decides nothing");
  assert.deepEqual(answer.tokens.slice(0, sure), tokens.slice(0, sure), `${what}, prompt ${i}`);
  assertClose(answer.logprobs!.slice(0, sure), logprobs.slice(0, sure), 2e-3, `${what}, prompt ${i}`);
}

Deno.test("the shipped model gives the reference's answers, in one batch, padded on either side", async () => {
  for (const side of ["left", "right"] as const) {
    const answers = await generateBatch(small, batchOf(prompts, side), reference);
    answers.forEach((answer, i) => assertGolden(answer, i, `padded on the ${side}`));
  }
});

Deno.test("the shipped model gives the reference's answers one by one", async () => {
  for (const [i, prompt] of prompts.entries()) {
    assertGolden((await generateBatch(small, batchOf([prompt]), reference))[0], i, "alone");
  }
});

Deno.test("the shipped model gives the reference's answers without capture", async () => {
  const answers = await generateBatch(smallOpByOp, batchOf(prompts), reference);
  answers.forEach((answer, i) => assertGolden(answer, i, "op by op"));
});

Deno.test("the shipped model's logits after the prompt are the reference's", async () => {
  (await logitsOf(small, prompts)).forEach((logits, i) => {
    const { first16, topTokens, topLogits } = golden[i].prefill;
    assertClose(logits.slice(0, 16), first16, 2e-3, `first logits of prompt ${i}`);
    assertClose(topTokens.map((token) => logits[token]), topLogits, 2e-3, `top logits of prompt ${i}`);
  });
});

Deno.test("one captured step serves other batch sizes and cache lengths", async () => {
  for (const rows of [1, 5, 2]) {
    for (const length of [1, 3, 40]) {
      const batch = batchOf(Array.from({ length: rows }, (_, i) => Array.from({ length }, (_, j) => 100 + 7 * i + j)));
      const options = { maxTokens: 20, ignoreEos: true, logprobs: true };
      const captured = await generateBatch(small, batch, options);
      const plain = await generateBatch(smallOpByOp, batch, options);
      assert.deepEqual(captured.map((row) => row.tokens), plain.map((row) => row.tokens), `${rows} rows of ${length}`);
      captured.forEach((row, i) => assertClose(row.logprobs!, plain[i].logprobs!, 1e-4, `${rows} rows of ${length}`));
    }
  }
  // Prefill and decode, few rows or some or many, with log-probabilities or without: no more, whatever the sizes.
  const kinds = Runner.of(small).captures;
  assert.ok(kinds <= 2 * 3 * 2, `${kinds} steps were captured`);
  for (const [rows, length] of [[3, 2], [4, 30], [2, 35]]) {
    const batch = batchOf(Array.from({ length: rows }, () => Array(length).fill(7)));
    await generateBatch(small, batch, { maxTokens: 30, ignoreEos: true, logprobs: true });
  }
  assert.equal(Runner.of(small).captures, kinds);
});

Deno.test("padding may be anywhere: only the mask says what is real", async () => {
  const expected = await generateBatch(small, batchOf([prompts[0]]), reference);
  const [a, b, c, ...rest] = prompts[0];
  const holes: Batch = {
    inputIds: [[0, a, b, 9, c, ...rest, 5]],
    attentionMask: [[0, 1, 1, 0, 1, ...rest.map(() => 1), 0]],
  };
  assert.deepEqual((await generateBatch(small, holes, reference))[0].tokens, expected[0].tokens);
  // EOS is also GPT-2's padding token: where the mask says 1, it counts.
  const withEos = await generateBatch(small, batchOf([[50256, ...prompts[0]]]), reference);
  assert.notDeepEqual(withEos[0].logprobs, expected[0].logprobs);
});

Deno.test("a row ends with the end-of-text token, the others go on, and ignoreEos goes on too", async () => {
  // Make the token that row 0 says third the end-of-text token.
  const rows = [[1, 2, 3], [4, 5, 6, 7, 8]];
  const plain = await generateBatch(tiny, batchOf(rows), { maxTokens: 12, ignoreEos: true });
  const eos = plain[0].tokens[2], firstIn = (tokens: number[]) => tokens.indexOf(eos) + 1 || 12;
  using model = await loadGPT2(await writeTinyModel({ seed: 1, config: { eos_token_id: eos } }), { backend });
  const stopped = await generateBatch(model, batchOf(rows), { maxTokens: 12, logprobs: true });
  for (const [i, { tokens, finishReason, logprobs }] of stopped.entries()) {
    const length = firstIn(plain[i].tokens);
    assert.deepEqual(tokens, plain[i].tokens.slice(0, length));
    assert.equal(finishReason, plain[i].tokens.includes(eos) ? "stop" : "length");
    assert.equal(logprobs!.length, length);
  }
  assert.ok(stopped[0].tokens.length <= 3);
  const ignored = await generateBatch(model, batchOf(rows), { maxTokens: 12, ignoreEos: true });
  assert.deepEqual(ignored.map((row) => row.tokens), plain.map((row) => row.tokens));
});

Deno.test("the iterator yields each step and returns the answers", async () => {
  const steps = generateSteps(tiny, batchOf([[1, 2], [3]]), { maxTokens: 5, ignoreEos: true });
  const seen: (number | null)[][] = [];
  let next = await steps.next();
  for (; !next.done; next = await steps.next()) {
    assert.equal(next.value.index, seen.length);
    seen.push(next.value.tokens);
  }
  assert.equal(seen.length, 5);
  assert.deepEqual(next.value.map((row) => row.tokens), [0, 1].map((i) => seen.map((tokens) => tokens[i])));
});

Deno.test("prefill and decodeStep are the loop that generateBatch runs", async () => {
  const inputs = batchOf([[1, 2, 3], [4]]), options = { maxTokens: 4, ignoreEos: true };
  using generation = await prefill(tiny, inputs, options);
  assert.equal(generation.lastStep.index, 0);
  while (!generation.finished) await decodeStep(tiny, generation);
  assert.deepEqual(generation.rows, await generateBatch(tiny, inputs, options));
});

Deno.test("steps that run ahead of the host give the same answers, whatever rows end with, and when", async () => {
  const all = await generateBatch(small, batchOf(prompts), { maxTokens: 24, ignoreEos: true, tokenizer });
  const lasting = { maxTokens: 24, ignoreEos: true }, [a, b] = all.map(({ tokens }) => tokens);
  const last = a.find((token, i) => i > 3 && i < 20 && a.indexOf(token) === i)!; // in the middle, and not before
  const ends = [
    { ...lasting, stopIds: [last] },
    { ...lasting, stop: tokenizer.decode(b.slice(9, 11)) },
    { ...lasting, maxTokens: 13 },
    { maxTokens: 24 },
  ];
  for (const own of [ends, [lasting, { ...lasting, maxTokens: 13 }], [ends[0]], [ends[1]], [lasting]]) {
    const inputs = batchOf(prompts.slice(0, own.length)), options = { ...lasting, tokenizer, rows: own };
    const steps = generateSteps(small, inputs, options); // one by one
    let next = await steps.next();
    while (!next.done) next = await steps.next();
    assert.deepEqual(await generateBatch(small, inputs, options), next.value);
    const lengths = next.value.map(({ tokens }) => tokens.length);
    if (own[0] === ends[0]) assert.equal(lengths[0], a.indexOf(last) + 1);
    if (own === ends) assert.equal(new Set(lengths).size, ends.length, lengths.join());
  }
});

Deno.test("so many steps run ahead as certainly have rows to go on, in the time that a signal may wait", async () => {
  const inputs = batchOf([[1, 2, 3], [4]]), ahead = { certain: 16, uncertain: 4, milliseconds: 100 };
  const steps = async (options: Partial<GenerateOptions>, milliseconds = 1) => {
    using generation = await prefill(tiny, inputs, { maxTokens: 40, ...options });
    generation.stepMilliseconds = milliseconds;
    return generation.stepsAhead(ahead);
  };
  assert.equal(await steps({ ignoreEos: true }), 16);
  assert.equal(await steps({}), 4);
  assert.equal(await steps({ ignoreEos: true, stop: "x", tokenizer }), 4);
  assert.equal(await steps({ ignoreEos: true, rows: [undefined, { maxTokens: 8 }] }), 7);
  assert.equal(await steps({ ignoreEos: true }, 30), 3);
  assert.equal(await steps({ ignoreEos: true }, 500), 1);
  assert.equal(await steps({ ignoreEos: true, temperature: 1 }), 1);
  assert.equal(await steps({ ignoreEos: true, logprobs: true }), 1);

  using generation = await prefill(tiny, inputs, { maxTokens: 40, ignoreEos: true });
  generation.stepMilliseconds = 1;
  await decodeSteps(tiny, generation);
  assert.equal(generation.lastStep.index, 16);
  assert.deepEqual(generation.cache.lengths, [3 + 16, 1 + 16]);
});

Deno.test("generateTokenKvCaching() goes on from the cache that it returned", async () => {
  const inputs = batchOf([[1, 2, 3], [4]]);
  const [row0, row1] = await generateBatch(tiny, inputs, { maxTokens: 2, ignoreEos: true });
  const first = await generateTokenKvCaching(tiny, inputs);
  using cache = first.cache;
  const second = await generateTokenKvCaching(tiny, { inputIds: first.nextTokenIds.map((id) => [id]), cache });
  assert.deepEqual([first.nextTokenIds, second.nextTokenIds], [0, 1].map((i) => [row0.tokens[i], row1.tokens[i]]));
});

Deno.test("aborting takes effect between steps and frees everything", async () => {
  const before = tf.memory().numTensors;
  const controller = new AbortController();
  const steps = generateSteps(tiny, batchOf([[1, 2]]), { maxTokens: 50, ignoreEos: true, signal: controller.signal });
  await steps.next();
  await steps.next();
  controller.abort(new Error("enough"));
  await assert.rejects(steps.next(), /enough/);
  await assert.rejects(generateBatch(tiny, batchOf([[1]]), { maxTokens: 2, signal: controller.signal }), /enough/);
  assert.equal(tf.memory().numTensors, before);
});

Deno.test("nothing leaks, however generation ends", async () => {
  await generateBatch(tiny, batchOf([[1]]), { maxTokens: 2, logprobs: true }); // captures the steps
  await generateBatch(tiny, batchOf([[1]]), { maxTokens: 2 });
  await generateBatch(tiny, batchOf([[1, 2]]), { maxTokens: 2 });
  const before = tf.memory().numTensors;
  for await (const _ of generateSteps(tiny, batchOf([[1, 2], [3]]), { maxTokens: 60 })) break;
  await generateBatch(tiny, batchOf([[1, 2], [3]]), { maxTokens: 40, ignoreEos: true });
  await assert.rejects(generateBatch(tiny, batchOf([[1, 2]]), { maxTokens: 1000 }));
  assert.equal(tf.memory().numTensors, before);
});

Deno.test("inputs are not changed", async () => {
  const inputs = batchOf([[1, 2, 3], [4]], "right"), copy = structuredClone(inputs);
  await generateBatch(tiny, inputs, { maxTokens: 3 });
  assert.deepEqual(inputs, copy);
});

Deno.test("an empty prompt starts from the end-of-text token", async () => {
  const inputs = tokenizer(["", "Call me"], { padding: true });
  const [empty] = await generateBatch(small, inputs, { maxTokens: 5 });
  const [eos] = await generateBatch(small, { inputIds: [[50256]], attentionMask: [[1]] }, { maxTokens: 5 });
  assert.deepEqual(empty, eos);
});

Deno.test("what cannot be generated is refused with advice", async () => {
  const refuse = (batch: Batch, options: GenerateOptions, message: RegExp) =>
    assert.rejects(generateBatch(tiny, batch, options), (error: Error) => {
      assert.ok(error instanceof RangeError, `${error}`);
      assert.match(error.message, message);
      return true;
    });
  const long = (length: number) => batchOf([Array.from({ length }, () => 1)]);
  await refuse(long(7), { maxTokens: 2000 }, /prompt has 7 and the model holds 96\. Lower maxTokens to 89\./);
  await refuse(long(96), { maxTokens: 1 }, /a prompt of 96 tokens: the model holds 96/);
  await refuse(long(97), { maxTokens: 1 }, /a prompt of 97 tokens/);
  for (const maxTokens of [0, -1, 1.5, NaN, Infinity]) await refuse(long(1), { maxTokens }, /whole number from 1 up/);
  await refuse(batchOf([[TINY.vocab_size]]), { maxTokens: 1 }, /inputIds\[0\]\[0\]: it is 97/);
  await refuse(batchOf([[-1]]), { maxTokens: 1 }, /it is -1/);
  await refuse({ inputIds: [], attentionMask: [] }, { maxTokens: 1 }, /at least one prompt/);
  await refuse({ inputIds: [[1]], attentionMask: [[0]] }, { maxTokens: 1 }, /no real token/);
  assert.equal((await generateBatch(tiny, long(89), { maxTokens: 7, ignoreEos: true }))[0].tokens.length, 7);
});

Deno.test("a batch that does not fit into memory is refused with the number of bytes", async () => {
  const inputs = { inputIds: Array(200_000).fill([1]), attentionMask: Array(200_000).fill([1]) };
  const folder = await writeTinyModel({ seed: 1, config: { n_layer: 8, n_embd: 96 } });
  using model = await loadGPT2(folder, { backend });
  await assert.rejects(generateBatch(model, inputs, { maxTokens: 95 }), (error: Error) => {
    assert.ok(error instanceof RangeError);
    const bytes = Number(/needs (\d+) bytes/.exec(error.message)?.[1]);
    assert.ok(bytes > 8 * 2 * 200_000 * 96 * 96 * 4, error.message);
    return true;
  });
});
