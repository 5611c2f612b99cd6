/** Several backends in one process: tfjs has one current backend, and a model runs on its own all the same. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import type { Backend } from "../lib/backend/types.ts";
import { profileStep } from "../lib/bench/profile.ts";
import { timeLinear, timeReading } from "../lib/bench/roofline.ts";
import { generateBatch, generateSteps, generateTokenKvCaching } from "../lib/engine/generate.ts";
import { nextTokenLogits } from "../lib/engine/logits.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import type { GPT2 } from "../lib/gpt2/model.ts";
import { PlainGPT2 } from "../lib/gpt2/plain.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { workingBackends } from "./_support/backends.ts";
import { assertClose } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const { working, missing } = await workingBackends();
const folder = await writeTinyModel({ seed: 1 });
const inputs = padBatch([[1, 2, 3, 4, 5], [6, 7], [8]], { padTokenId: 0 });
const OPTIONS = { maxTokens: 30, ignoreEos: true, logprobs: true }; // the cache grows on the way

/** Until it is disposed of, a backend takes no tensors: none is made on it, and none moved to it. */
function closed({ name }: Backend): Disposable {
  const backend = tf.findBackend(name), { write, move } = backend;
  backend.write = backend.move = () => {
    throw new Error(`a tensor came to ${name}`);
  };
  return { [Symbol.dispose]: () => void Object.assign(backend, { write, move }) };
}

/** What a model of this backend says, of every kind that it can be asked for; it is loaded and freed here. */
async function everything(backend: Backend): Promise<{ exact: unknown; close: number[] }> {
  const exact: unknown[] = [], close: number[] = [];
  for (const dtype of backend.dtypes) {
    using model = await loadGPT2(folder, { backend, dtype });
    for (const { tokens, logprobs } of await generateBatch(model, inputs, OPTIONS)) {
      exact.push(tokens);
      close.push(...logprobs!);
    }
    for (const logits of await nextTokenLogits(model, inputs)) close.push(...logits);
    const { nextTokenIds, cache } = await generateTokenKvCaching(model, inputs);
    const next = await generateTokenKvCaching(model, { inputIds: nextTokenIds.map((id) => [id]), cache });
    cache.reserve(cache.rows, cache.rows.map(() => 60));
    const { keys, values } = await cache.read(1, 1);
    close.push(...keys.flat(), ...values.flat());
    exact.push(next.nextTokenIds, cache.rows.map(({ bucket }) => bucket.slots));
    cache[Symbol.dispose]();
  }
  return { exact, close };
}

for (const own of working) {
  for (const other of working.filter((backend) => backend !== own)) {
    Deno.test(`a model on ${own.name} says the same while ${other.name} is tfjs's current backend`, async () => {
      await useBackend(own.name);
      const expected = await everything(own);
      await useBackend(other.name);
      const before = tf.memory().numTensors;
      const shared = tf.findBackend(own.name) === tf.findBackend(other.name); // then no tensor is on the wrong one
      using _ = shared ? null : closed(other);
      if (!shared) assert.throws(() => tf.scalar(1), new RegExp(`a tensor came to ${other.name}`));
      const found = await everything(own);
      assert.equal(tf.getBackend(), other.name, "it leaves the current backend as it was");
      assert.equal(tf.memory().numTensors, before);
      assert.deepEqual(found.exact, expected.exact);
      assertClose(found.close, expected.close, 1e-5, "log-probabilities, logits, keys and values");
    });
  }
}

Deno.test("models on all backends take turns, step by step, and answer as each does alone", async () => {
  const models: GPT2[] = [];
  for (const backend of working) models.push(await loadGPT2(folder, { backend }));
  const alone = [];
  for (const model of models) alone.push(await generateBatch(model, inputs, OPTIONS));
  const inTurns = models.map((model) => generateSteps(model, inputs, OPTIONS));
  const ends = inTurns.map((): unknown => undefined);
  while (ends.includes(undefined)) {
    for (const [i, steps] of inTurns.entries()) {
      const { done, value } = await steps.next();
      if (done) ends[i] ??= value;
    }
  }
  assert.deepEqual(ends, alone);
  const current = tf.getBackend(), atOnce = models.map((model) => generateBatch(model, inputs, OPTIONS));
  for (const { name } of [...working, ...working]) await useBackend(name); // while all of them run
  assert.deepEqual(await Promise.all(atOnce), alone);
  await useBackend(current as Backend["name"]);
  for (const model of models) model[Symbol.dispose]();
});

Deno.test("measuring a backend, and looking into a model, work while another is current", async () => {
  const last = working.at(-1)!;
  for (const backend of working) {
    await useBackend(backend === last ? working[0].name : last.name);
    const before = tf.memory().numTensors;
    const layers = timeLinear(backend, { rows: 3, inputs: 32, outputs: 48, count: 2 }, { runs: 1 });
    if (backend.measureRoofs) {
      await assert.rejects(layers, /Cannot time an operation by itself on \w+, which runs whole/);
    } else assert.ok(await layers > 0 && await timeReading(backend, 4096, { runs: 1 }) > 0);
    if (backend.trace) {
      using model = await loadGPT2(folder, { backend });
      assert.ok((await profileStep(model, { batchSize: 2, slots: 8 })).entries.length > 3);
    }
    assert.equal(tf.memory().numTensors, before, backend.name);
  }
});

Deno.test("a plain GPT-2 stays on the backend that it was loaded on", async () => {
  const asked = { inputIds: [[1, 2, 3]], positionIds: [[0, 1, 2]], mask: [[[0, -1e9, -1e9], [0, 0, -1e9], [0, 0, 0]]] };
  for (const own of working) {
    await useBackend(own.name);
    using model = await PlainGPT2.fromPretrained(folder);
    const expected = (await model.forward(asked)).logits[0].flatMap((logits) => [...logits]);
    for (const { name } of working) {
      await useBackend(name);
      const { logits } = await model.forward(asked);
      assertClose(logits[0].flatMap((logits) => [...logits]), expected, 1e-5, `${own.name}, then ${name}`);
    }
  }
});

for (const [name, reason] of missing) {
  Deno.test({ name: `a model on ${name} says the same while another is current (${reason})`, ignore: true, fn() {} });
}
