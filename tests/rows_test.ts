/** Rows of their own: whoever joins, leaves, is rewound or forked, each row's logits are those that it has alone. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import type { BucketInputs } from "../lib/backend/ops.ts";
import { useBackend } from "../lib/backend/select.ts";
import type { Backend } from "../lib/backend/types.ts";
import { KvCache } from "../lib/engine/kv_cache.ts";
import { Runner } from "../lib/engine/runner.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { PlainGPT2 } from "../lib/gpt2/plain.ts";
import { compiledByXla, testOnEach, workingBackends } from "./_support/backends.ts";
import { assertClose, distance, logitsAlone, logitsOf } from "./_support/logits.ts";
import { randomChoices, randomSchedule } from "./_support/schedules.ts";
import { missedBy } from "./_support/sampling.ts";
import { TINY, writeTinyModel } from "./_support/tiny_models.ts";

const backends = await workingBackends();
const full = Deno.env.has("OMNIBUS_FULL");
const TOLERANCE = 2e-4;
/** Where XLA compiles steps, it takes a second for each size. */
const COMPILED = { schedules: full ? 20 : 5, steps: 6 };
const folder = await writeTinyModel({ seed: 1 });

/** Runs schedules on a model, and compares each row with what the same tokens get alone, on the backend `reference`. */
async function compare(
  backend: Backend,
  { schedules, steps = 12, lanes = [1], reference = backend }: {
    schedules: number;
    steps?: number;
    lanes?: readonly number[];
    reference?: Backend;
  },
): Promise<void> {
  using model = await loadGPT2(folder, { backend });
  using lone = await loadGPT2(folder, { backend: reference });
  // Rows of every length by themselves: as many buckets at a time as there can be.
  const apart = { ...backend.cachePolicy, bucketCost: 0 };
  using scattered = await loadGPT2(folder, { backend: Object.create(backend, { cachePolicy: { value: apart } }) });
  let compared = 0, ties = 0, choices = 0;
  for (let seed = 0; seed < schedules; seed++) {
    const options = { seed, steps, maxRows: 1 + seed % 12, lanes: lanes[seed % lanes.length] };
    const what = (tokens: number[]) => `schedule ${seed}, ${tokens.length} tokens`;
    const one = seed % 3 === 1 && !backend.sizeFor ? scattered : model;
    if (seed % 2) {
      const observed = await Array.fromAsync(randomSchedule(one, options));
      const alone = await logitsAlone(lone, observed.map(({ tokens }) => tokens));
      for (const [i, { tokens, logits }] of observed.entries()) {
        assertClose(logits, alone[i], TOLERANCE, what(tokens));
        compared++;
      }
    } else {
      const chosen = await Array.fromAsync(randomChoices(one, options));
      const alone = await logitsAlone(lone, chosen.map(({ tokens }) => tokens));
      for (const [i, { tokens, next, options: own, uniform }] of chosen.entries()) {
        const logits = Float32Array.from(alone[i]);
        const missed = missedBy(next.id, { options: own, prompt: tokens, answer: [], endIds: [], logits }, uniform);
        const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
        assertClose([next.logprob!], [logits[next.id] - total], TOLERANCE, what(tokens));
        if (missed > 0) ties++;
        assert.ok(
          missed < TOLERANCE || own.topP || own.topK || own.minP || !own.temperature,
          `${missed}, ${what(tokens)}`,
        );
        compared++;
        choices++;
      }
    }
  }
  assert.ok(ties <= Math.max(1, 0.005 * choices), `${ties} ties in ${choices} choices`);
  assert.ok(compared > 5 * schedules, `${compared} comparisons`);
}

testOnEach(
  backends,
  "in random schedules each row has the logits, and chooses the tokens, that it has alone",
  async (backend) => {
    if (backend.sizeFor) return await compare(backend, COMPILED);
    const many = backend.name === "tensorflow";
    await compare(backend, { schedules: (many ? 200 : 20) * (full ? 5 : 1), lanes: many ? [1, 1, 2, 3] : [1, 2] });
  },
);

Deno.test("compiled by XLA: in random schedules each row has the logits, and chooses the tokens, that it has alone", async () => {
  const reference = await useBackend("tensorflow"), compiled = await compiledByXla();
  await compare(compiled, { ...COMPILED, reference });
});

testOnEach(backends, "rows of a schedule have the logits of the plain model, which knows no cache", async (backend) => {
  using model = await loadGPT2(folder, { backend });
  const observed = [];
  for await (const observation of randomSchedule(model, { seed: 77, steps: 20, maxRows: 12 })) {
    observed.push(observation);
  }
  using plain = await PlainGPT2.fromPretrained(folder);
  const every = Math.max(1, Math.floor(observed.length / 20));
  for (const { tokens, logits } of observed.filter((_, i) => i % every === 0)) {
    const T = tokens.length, positions = tokens.map((_, i) => i);
    const mask = positions.map((query) => positions.map((key) => key <= query ? 0 : -1e9));
    const { logits: [row] } = await plain.forward({ inputIds: [tokens], positionIds: [positions], mask: [mask] });
    assertClose(logits, Array.from(row[T - 1]), TOLERANCE, `${T} tokens`);
  }
});

/** A backend that does attention wrong: what `change` makes of its inputs is what it computes with. */
function wrong(backend: Backend, change: (bucket: BucketInputs) => BucketInputs): Backend {
  const { ops } = backend,
    attention: typeof ops.attention = (bucket, ...rest) => ops.attention(change(bucket), ...rest);
  return Object.create(backend, { ops: { value: { ...ops, attention } } });
}

const mistakes: Record<string, (bucket: BucketInputs) => BucketInputs> = {
  "a mask that is off by one": (bucket) => ({ ...bucket, slots: tf.sub(bucket.slots, tf.scalar(1, "int32")) }),
  "locations without the row's start": (bucket) => ({
    ...bucket,
    rowStarts: bucket.rowStarts.map((starts) => tf.mul(starts, tf.scalar(0, "int32"))),
  }),
  "a released row's slots, seen by its successor": (bucket) => ({
    ...bucket,
    slots: tf.mul(bucket.slots, tf.scalar(0, "int32")),
  }),
};

for (const [what, change] of Object.entries(mistakes)) {
  Deno.test(`control: with ${what}, the schedules do not come out`, async () => {
    const [backend] = backends.working;
    await tf.setBackend(backend.name);
    using model = await loadGPT2(folder, { backend: wrong(backend, change) });
    using right = await loadGPT2(folder, { backend });
    let largest = 0;
    for await (const { tokens, logits } of randomSchedule(model, { seed: 3, steps: 12, maxRows: 6 })) {
      largest = Math.max(largest, distance(logits, (await logitsOf(right, [tokens]))[0]));
    }
    assert.ok(largest > 100 * TOLERANCE, `${largest}`);
  });
}

Deno.test("a bound on captured steps: schedules of all sizes need few kinds", async () => {
  const [backend] = backends.working;
  await tf.setBackend(backend.name);
  using model = await loadGPT2(folder, { backend });
  for (let seed = 0; seed < (backend.sizeFor ? 5 : 30); seed++) { // where sizes are compiled, that takes a second each
    for await (const _ of randomSchedule(model, { seed, steps: 8, maxRows: 12 }));
  }
  const { captures } = Runner.of(model);
  // 1 bucket (rarely 2), each fed singly or as a rectangle; all tokens wanted or some; three classes of size.
  assert.ok(captures <= 2 * 2 * 3 * 2, `${captures}`);
});

Deno.test("where each size is compiled for itself, sizes are few: one, and eights, as many as a whole number of three binary digits", async () => {
  const { sizeFor } = await compiledByXla();
  const sizes = new Set(Array.from({ length: 1024 }, (_, i) => sizeFor!(i + 1)));
  assert.ok(sizes.size <= 4 * 8, `${sizes.size}`);
  for (let i = 1; i <= 1024; i++) assert.ok(sizeFor!(i) >= i && sizeFor!(i) < 1.25 * i + 8, `${i} -> ${sizeFor!(i)}`);
});

testOnEach(backends, "rows of very different lengths lie in buckets of their own, and grow apart", async (backend) => {
  const config = { n_positions: 400, vocab_size: 97 };
  using model = await loadGPT2(await writeTinyModel({ seed: 4, config }), { backend });
  using cache = new KvCache(model);
  const prompts = [...Array.from({ length: 7 }, (_, i) => [i, i + 1]), Array.from({ length: 300 }, (_, i) => i % 97)];
  const rows = cache.admit({ slots: prompts.map(({ length }) => length) });
  const fed = prompts.map((prompt) => [...prompt]);
  let logits = await Runner.of(model).logits(cache, prompts.map((tokens, i) => ({ row: rows[i], tokens })));
  const { bucketCost } = backend.cachePolicy;
  assert.equal(cache.lanes[0].buckets.length, bucketCost < 7 * 284 ? 2 : 1);
  for (let step = 0; step < 20; step++) { // the short rows pass 16 slots
    const next = logits.map((row) => row.indexOf(Math.max(...row)));
    next.forEach((token, i) => fed[i].push(token));
    logits = await Runner.of(model).logits(cache, rows.map((row, i) => ({ row, tokens: [next[i]] })));
  }
  assert.equal(cache.lanes[0].buckets.length, bucketCost < 7 * 284 ? 2 : 1);
  for (const i of [0, 3, 7]) {
    assertClose(Array.from(logits[i]), (await logitsOf(model, [fed[i]]))[0], TOLERANCE, `row ${i}`);
  }
});

testOnEach(backends, "a cache frees all that it took, whatever was done with it", async (backend) => {
  using model = await loadGPT2(folder, { backend });
  const run = async () => {
    for (let seed = 0; seed < 3; seed++) {
      for await (const _ of randomSchedule(model, { seed, steps: 8, maxRows: 5 }));
    }
    return tf.memory().numTensors;
  };
  assert.equal(await run(), await run());
});

Deno.test("a row that is gone, a length beyond its own, and two steps at once are refused", async () => {
  const [backend] = backends.working;
  await tf.setBackend(backend.name);
  using model = await loadGPT2(folder, { backend });
  using cache = new KvCache(model);
  const [row, other] = cache.admit({ slots: [3, 3] }), runner = Runner.of(model);
  const feeds = [{ row, tokens: [1, 2, 3] }, { row: other, tokens: [4] }];
  const first = runner.step(cache, feeds);
  await assert.rejects(runner.step(cache, feeds), /Cannot run two steps on one cache at once: await the first/);
  await first;
  assert.deepEqual(cache.lengths, [3, 1]);
  assert.throws(() => cache.rewind(row, 4), /Cannot rewind a row of 3 tokens to 4/);
  assert.throws(() => cache.fork(row, 1.5), /Cannot fork 1.5 tokens/);
  cache.release(row);
  assert.throws(() => cache.release(row), /the cache does not have it, or no longer/);
  assert.deepEqual(cache.lengths, [1]);
  assert.equal(TINY.n_layer, cache.layers);
});
