/** The engine: whatever its scheduler does, each request gets what it gets alone; and what its scheduler may and may not do. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { Engine, QueueFull, type SubmitOptions } from "../lib/engine/engine.ts";
import { generateBatch } from "../lib/engine/generate.ts";
import { Bucket } from "../lib/engine/bucket.ts";
import { Job } from "../lib/engine/job.ts";
import { KvCache } from "../lib/engine/kv_cache.ts";
import { byPriority, firstCome, shortestPrompt } from "../lib/engine/policy.ts";
import type { Generated } from "../lib/engine/request.ts";
import { Runner } from "../lib/engine/runner.ts";
import { SampledRow } from "../lib/engine/sampled_row.ts";
import { type StepRecord, Timeline } from "../lib/engine/timeline.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import type { GPT2 } from "../lib/gpt2/model.ts";
import { openTensorflow } from "../lib/tensorflow/tfjs/backend.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import { seededRandom } from "../lib/util/random.ts";
import { compiledByXla, testOnEach, workingBackends } from "./_support/backends.ts";
import { alone, type Asked, randomRequest, randomWork, untilStep } from "./_support/engine_workloads.ts";
import { assertDrawn } from "./_support/draws.ts";
import { collectGarbage } from "./_support/garbage.ts";
import { assertClose } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const backends = await workingBackends();
const full = Deno.env.has("OMNIBUS_FULL");
const folder = await writeTinyModel({ seed: 1, config: { eos_token_id: 7 } });

/** Opens the tiny model on the first backend. */
async function tiny() {
  const [backend] = backends.working;
  await tf.setBackend(backend.name);
  return await loadGPT2(folder, { backend });
}

const eventsOf = (steps: readonly StepRecord[], what: string) =>
  steps.flatMap(({ events }) => events.filter((event) => event.what === what));

/** The answers that differ from those that the requests get alone, from `model`. */
async function differing(model: GPT2, asked: readonly Asked[]): Promise<string[]> {
  const wrong: string[] = [];
  for (const [i, { options, answer }] of asked.entries()) {
    if (!answer) continue;
    const expected = await alone(model, options);
    const say = JSON.stringify([answer.tokens, expected.tokens]);
    if (String(answer.tokens) !== String(expected.tokens)) wrong.push(`request ${i}: ${say}`);
    else {
      assert.equal(answer.finishReason, expected.finishReason);
      for (const key of ["logprobs", "promptLogprobs"] as const) {
        const own: number[] | undefined = answer[key], other: number[] | undefined = expected[key];
        assert.equal(own?.length, other?.length, `request ${i}: ${key}`);
        if (own) assertClose(own, other!, 1e-3, `request ${i}: ${key}`);
      }
    }
  }
  return wrong;
}

Deno.test("each of many random requests gets what it gets alone, whoever comes, leaves or gives way to it", async () => {
  using model = await tiny();
  const batches = full ? 400 : 12,
    requests = 25,
    seen = { preempted: 0, cancelled: 0, reused: 0, chunks: 0, tokens: 0 };
  let wrong: string[] = [];
  for (let seed = 0; seed < batches; seed++) {
    const { asked, steps, engine } = await randomWork(model, { seed, requests });
    wrong = [...wrong, ...(await differing(model, asked)).map((one) => `seed ${seed}, ${one}`)];
    assert.deepEqual(asked.filter(({ answer }) => answer?.finishReason === null), []);
    for (const { kvCacheBytes, step } of steps) {
      assert.ok(kvCacheBytes <= engine.kvCacheBytes, `seed ${seed}, step ${step}: ${kvCacheBytes} bytes`);
    }
    seen.preempted += eventsOf(steps, "preempted").length;
    seen.cancelled += eventsOf(steps, "cancelled").length;
    seen.reused += eventsOf(steps, "admitted").filter(({ reused }) => reused).length;
    const prefills = steps.flatMap(({ rows }) => rows.filter(({ phase }) => phase === "prefill"));
    seen.chunks += prefills.length - eventsOf(steps, "admitted").length;
    seen.tokens += asked.reduce((sum, { answer }) => sum + (answer?.tokens.length ?? 0), 0);
  }
  const { captures } = Runner.of(model);
  console.log({ ...seen, captures });
  // In three sizes: a bucket that decodes, with three ends; several; one of prompts; and one of prompts with those that decode.
  const most = model.backend.stepBuckets ? 3 * (3 + 1 + 1 + 1) : 60;
  assert.ok(captures <= most, `${captures} captured steps`);
  assert.deepEqual(wrong, []);
  for (const [what, count] of Object.entries(seen)) assert.ok(count >= batches, `${what}: ${count}`);
});

Deno.test("unless it is told, an engine takes half of the memory that is free for its cache, also after a warm-up", async () => {
  const [backend] = backends.working, [most, left] = [10_000, 6000];
  let free = 1e9;
  using model = await loadGPT2(folder, { backend: Object.create(backend, { availableMemory: { value: () => free } }) });
  free = most;
  await using engine = new Engine({ model }), told = new Engine({ model, kvCacheBytes: 9000 });
  assert.equal(engine.limits.kvCacheBytes, most / 2);
  free = left;
  for (const one of [engine, told]) await one.warmUp();
  assert.deepEqual([engine, told].map(({ limits }) => limits.kvCacheBytes), [left / 2, 9000]);
});

Deno.test("after a warm-up no request has to wait until a step is captured", async () => {
  const captured = async (warm: boolean) => {
    using model = await tiny();
    await using engine = new Engine({ model, maxBatch: 12, stepTokens: 50 });
    if (warm) await engine.warmUp();
    const random = seededRandom(5), before = Runner.of(model).captures, results: Promise<Generated>[] = [];
    for (let i = 0; i < 60; i++) {
      const { promptLogprobs: _, logprobs: __, topLogprobs: ___, ...options } = randomRequest(model.config, random);
      results.push(engine.submit(options).result);
      if (random() < 0.5) await untilStep(engine, engine.timeline.count + Math.floor(random() * 8));
    }
    await Promise.all(results);
    return Runner.of(model).captures - before;
  };
  const [cold, warm] = [await captured(false), await captured(true)];
  console.log({ cold, warm });
  assert.ok(warm === 0 && (cold > 0 || !backends.working[0].stepBuckets), `${warm} captures, and ${cold} without`);
});

/** The answers of random work on the small model that are not what their draws ask for, one by one, and the number of ties. */
async function notDrawn(
  requests: number,
  seed: number,
  work = randomWork,
): Promise<{ wrong: string[]; ties: number; tokens: number }> {
  const [backend] = backends.working;
  await tf.setBackend(backend.name);
  using model = await loadGPT2("models/small", { backend });
  const { asked } = await work(model, { seed, requests }), wrong: string[] = [];
  let ties = 0, tokens = 0;
  for (const [i, { options: { prompt, ...options }, answer }] of asked.entries()) {
    if (!answer) continue;
    tokens += answer.tokens.length;
    await assertDrawn(model, prompt, options, answer).then(
      (count) => ties += count,
      ({ message }) => wrong.push(`request ${i}: ${message}`),
    );
  }
  return { wrong, ties, tokens };
}

Deno.test("among 50,257 tokens each answer is what its draws ask for, whatever seats and memory its engine has", async () => {
  const seen = { ties: 0, tokens: 0 };
  for (let seed = 0; seed < (full ? 20 : 1); seed++) {
    const { wrong, ties, tokens } = await notDrawn(full ? 30 : 8, seed);
    console.log({ seed, ties, tokens });
    assert.deepEqual(wrong, []);
    seen.ties += ties;
    seen.tokens += tokens;
  }
  assert.ok(seen.ties <= Math.max(2, 0.005 * seen.tokens), `${seen.ties} ties in ${seen.tokens} tokens`);
});

/** Replaces what an object has by something else, until it is disposed. */
function replaced<T extends object>(object: T, key: keyof T, descriptor: PropertyDescriptor): Disposable {
  const before = Object.getOwnPropertyDescriptor(object, key)!;
  Object.defineProperty(object, key, { configurable: true, ...descriptor });
  return { [Symbol.dispose]: () => void Object.defineProperty(object, key, before) };
}

const sharedWith = Job.prototype.sharedWith, fork = KvCache.prototype.fork, feed = Job.prototype.feed;
let draws = 0;
const mistakes: Record<string, () => Disposable> = {
  "a token too many taken over from another row": () =>
    replaced(Job.prototype, "sharedWith", {
      value(this: Job, other: Job) {
        const shared = sharedWith.call(this, other), most = Math.min(other.row?.length ?? 0, this.length - 1);
        return shared && Math.min(shared + 1, most);
      },
    }),
  "a fork that lacks its last token's keys and values": () =>
    replaced(KvCache.prototype, "fork", {
      value(this: KvCache, ...[row, length = row.length, phase]: Parameters<typeof fork>) {
        const copy = fork.call(this, row, length - 1, phase);
        copy.length = length;
        return copy;
      },
    }),
  "a preempted request whose answer is not fed again": () =>
    replaced(Job.prototype, "feed", {
      value(this: Job, count: number) {
        const fed = feed.call(this, count);
        return count > 1 && this.length > this.promptLength ? { ...fed, tokens: fed.tokens.map(() => 1) } : fed;
      },
    }),
  "draws in the order of the steps, not of a request's tokens": () =>
    replaced(SampledRow.prototype, "uniform", { get: () => (draws += 0.618034) % 1 }),
};

for (const [what, make] of Object.entries(mistakes)) {
  Deno.test(`control: with ${what}, random requests do not get what they get alone`, async () => {
    using model = await tiny();
    const wrong: string[] = [];
    for (let seed = 0; seed < 3; seed++) {
      const work = async () => {
        using _ = make();
        return await randomWork(model, { seed, requests: 25 }).catch(() => ({ asked: [] }));
      };
      const { asked } = await work();
      wrong.push(
        ...await differing(
          model,
          asked.map(({ options, answer }) => ({
            options: { ...options, logprobs: false, promptLogprobs: false },
            answer: answer && { tokens: answer.tokens, finishReason: answer.finishReason },
          })),
        ).catch(() => ["ended otherwise"]),
      );
    }
    assert.ok(wrong.length > 0);
  });
}

Deno.test("control: among 50,257 tokens draws in the order of the steps are not those of the requests", async () => {
  const mistaken: typeof randomWork = async (...work) => {
    using _ = mistakes["draws in the order of the steps, not of a request's tokens"]();
    return await randomWork(...work);
  };
  assert.ok((await notDrawn(8, 0, mistaken)).wrong.length > 0);
});

const ask = (prompt: readonly number[], maxTokens: number, more: Partial<SubmitOptions> = {}): SubmitOptions => ({
  ...{ prompt, maxTokens, ignoreEos: true },
  ...more,
});
/** Prompts that begin differently. */
const promptOf = (first: number, length: number) =>
  Array.from({ length }, (_, i) => (17 * first + 31 * i + i * i) % 97);
const tokensFed = (steps: readonly StepRecord[], request: number) =>
  steps.flatMap(({ rows }) => rows.filter((row) => row.request === request).map(({ tokens }) => tokens));
const order = (steps: readonly StepRecord[], what = "admitted") => eventsOf(steps, what).map(({ request }) => request);

Deno.test("a long prompt is fed in chunks beside the rows that decode, none of which misses a step", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, maxBatch: 4, stepTokens: 10 });
  const short = [0, 1, 2].map((i) => engine.submit(ask(promptOf(i, 2), 40)));
  await untilStep(engine, 3);
  const long = ask(promptOf(9, 60), 5), late = engine.submit(long);
  await Promise.all([...short, late].map(({ result }) => result));
  assert.deepEqual((await late.result).tokens, (await alone(model, long)).tokens);
  const { steps } = engine.timeline;
  const first = steps.findIndex(({ rows }) => rows.some(({ request }) => request === 3));
  assert.deepEqual(tokensFed(steps, 3), [7, 7, 7, 7, 7, 7, 7, 7, 4, 1, 1, 1, 1], "7 of 10 are left beside three rows");
  for (const { rows } of steps.slice(first, first + 9)) {
    assert.ok(rows.reduce((sum, { tokens }) => sum + tokens, 0) <= 10);
    assert.deepEqual(
      rows.slice(0, 3).map(({ request, phase }) => [request, phase]),
      [0, 1, 2].map((i) => [i, "decode"]),
    );
  }
});

Deno.test("whoever decodes has a row in every step until it ends, whatever comes and goes, unless it gives way", async () => {
  using model = await tiny();
  let gaps = 0, rows = 0;
  for (let seed = 20; seed < 24; seed++) {
    const { steps, engine } = await randomWork(model, { seed, requests: 25 });
    const decoding = new Set<number>();
    for (const step of steps) {
      const fed = new Set(step.rows.map(({ request }) => request));
      for (const { request, what } of step.events) if (what !== "admitted") decoding.delete(request);
      gaps += [...decoding].filter((request) => !fed.has(request)).length;
      for (const { request, phase } of step.rows) if (phase === "decode") decoding.add(request);
      rows += decoding.size;
      assert.ok(step.rows.reduce((sum, { tokens }) => sum + tokens, 0) <= engine.stepTokens!);
      assert.ok(step.rows.length <= engine.maxBatch!);
      assert.equal(new Set(step.rows.map(({ seat }) => seat)).size, step.rows.length, "one to a seat");
    }
  }
  assert.ok(gaps === 0 && rows > 500, `${gaps} gaps, ${rows} rows`);
});

Deno.test("seats go to who came first, unless the policy says otherwise", async () => {
  using model = await tiny();
  const orderOf = async (policy: typeof firstCome) => {
    await using engine = new Engine({ model, maxBatch: 1, policy });
    const lengths = [5, 9, 3, 7, 3],
      results = lengths.map((length, i) => engine.submit(ask(promptOf(i, length), 2, { priority: i % 3 })).result);
    await Promise.all(results);
    return order(engine.timeline.steps);
  };
  assert.deepEqual(await orderOf(firstCome), [0, 1, 2, 3, 4]);
  assert.deepEqual(await orderOf(shortestPrompt), [2, 4, 0, 3, 1]);
  assert.deepEqual(await orderOf(byPriority), [2, 1, 4, 0, 3]);
});

/** The memory of so many blocks of 16 slots of one row. */
const blocks = ({ config }: Awaited<ReturnType<typeof tiny>>, count: number) => KvCache.bytes(config, 1, 16 * count);

Deno.test("when memory runs short the newest gives way, never the oldest, and goes on before those that wait", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, maxBatch: 4, kvCacheBytes: blocks(model, 6) });
  const asked = [0, 1, 2, 3].map((i) => ask(promptOf(i, 10), 50, { temperature: 1, seed: i }));
  const results = await Promise.all(asked.map((options) => engine.submit(options).result));
  for (const [i, { tokens }] of results.entries()) {
    assert.deepEqual(tokens, (await alone(model, asked[i])).tokens, `request ${i}`);
  }
  const { steps } = engine.timeline, preempted = order(steps, "preempted"), admitted = order(steps);
  assert.ok(preempted.length > 0 && !preempted.includes(0), `${preempted}`);
  const seated = new Set<number>();
  for (const { events, kvCacheBytes } of steps) {
    assert.ok(kvCacheBytes <= blocks(model, 6));
    for (const { request, what } of events) {
      if (what === "preempted") assert.equal(request, Math.max(...seated), "the newest");
      if (what === "admitted") seated.add(request);
      else seated.delete(request);
    }
  }
  const again = preempted.map((request) => admitted.lastIndexOf(request));
  assert.ok(again.every((place, i) => place > admitted.indexOf(preempted[i])), "each was admitted again");
  assert.deepEqual(order(steps, "ended"), [0, 1, 2, 3], "nobody overtook");
});

Deno.test("who gave way is not admitted again before somebody has left", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, maxBatch: 4, kvCacheBytes: blocks(model, 6) });
  await Promise.all([0, 1, 2, 3].map((i) => engine.submit(ask(promptOf(i, 10), 50)).result));
  let short = false, checked = 0;
  for (const { events } of engine.timeline.steps) {
    for (const { what } of events) {
      if (what === "ended") short = false;
      if (what === "admitted") assert.ok(!short);
      if (what === "preempted") [short, checked] = [true, checked + 1];
    }
  }
  assert.ok(checked > 0);
});

Deno.test("where empty slots are free rows get their whole answers' at once, if memory holds that for all", async () => {
  using model = await tiny();
  const { grow } = Bucket.prototype;
  let grown = 0;
  using _ = replaced(Bucket.prototype, "grow", {
    value(this: Bucket, slots: number) {
      grown++;
      grow.call(this, slots);
    },
  });
  const cachePolicy = { ...model.backend.cachePolicy, emptySlotsAreFree: true };
  using roomy = await loadGPT2(folder, { backend: { ...model.backend, cachePolicy } });
  const grownWith = async (model: GPT2, count: number) => {
    await using engine = new Engine({ model, maxBatch: 4, kvCacheBytes: blocks(model, count) });
    grown = 0;
    const asked = [0, 1, 2].map((i) => ask(promptOf(i, 10), 50));
    const results = await Promise.all(asked.map((options) => engine.submit(options).result));
    for (const [i, { tokens }] of results.entries()) {
      assert.deepEqual(tokens, (await alone(model, asked[i])).tokens, `request ${i}`);
    }
    return grown;
  };
  assert.equal(await grownWith(roomy, 12), 0);
  assert.ok(await grownWith(roomy, 11) > 0, "three rows of four blocks do not fit");
  assert.ok(await grownWith(model, 12) > 0);
});

Deno.test("answers to one prompt are spread over the lanes", async () => {
  using model = await tiny();
  const parallelism = { lanes: 2, threads: 1 }, { step } = Runner.prototype, rows: number[][] = [];
  using _ = replaced(Runner.prototype, "step", {
    value(this: Runner, ...[cache, feeds, options]: Parameters<typeof step>) {
      const laneOf = ({ row }: typeof feeds[number]) =>
        cache.lanes.findIndex(({ buckets }) => buckets.includes(row.bucket));
      rows.push(cache.lanes.map((_, lane) => feeds.filter((feed) => laneOf(feed) === lane).length));
      return step.call(this, cache, feeds, options);
    },
  });
  await using engine = new Engine({ model, maxBatch: 4, parallelism });
  const options = ask(promptOf(1, 12), 6, { temperature: 1, seed: 5 });
  const answers = await Promise.all(engine.submitAll(options, 4).map(({ result }) => result));
  const full = rows.filter(([a, b]) => a + b === 4);
  assert.ok(full.length > 0 && full.every(([a, b]) => a === b), `${rows.join("; ")}`);
  const inputs = padBatch([[...options.prompt]], { padTokenId: 0 }), { prompt: _prompt, ...rest } = options;
  const expected = await generateBatch(model, inputs, { ...rest, n: 4, parallelism: { lanes: 1, threads: 1 } });
  assert.deepEqual(answers.map(({ tokens }) => tokens), expected.map(({ tokens }) => tokens));
});

Deno.test("what can never be answered is refused at once, with the bytes that it needs", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, kvCacheBytes: blocks(model, 2) });
  assert.throws(
    () => engine.submit(ask(promptOf(0, 20), 14)),
    new RegExp(`alone it may need ${blocks(model, 3)} bytes .* kvCacheBytes is ${blocks(model, 2)}`),
  );
  assert.equal((await engine.submit(ask(promptOf(0, 20), 13)).result).tokens.length, 13);
  const wrong: [Partial<SubmitOptions>, RegExp][] = [
    [{ prompt: [] }, /no real token/],
    [{ prompt: [97] }, /it is 97/],
    [{ maxTokens: 0 }, /Cannot generate 0 tokens/],
    [{ maxTokens: 95 }, /Lower maxTokens to 94/],
    [{ temperature: -1 }, /temperature -1/],
    [{ topLogprobs: 98 }, /topLogprobs 98/],
  ];
  for (const [options, message] of wrong) assert.throws(() => engine.submit(ask([1, 2], 3, options)), message);
  assert.throws(() => new Engine({ model, maxBatch: 8, stepTokens: 7 }), /stepTokens 7: .* from 8 up/);
  assert.throws(() => new Engine({ model, maxBatch: 0 }), /maxBatch 0/);
  assert.equal(engine.waiting, 0);
});

Deno.test("a prompt that begins like a cached row's feeds only the rest, also after that row has ended", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, maxBatch: 3 });
  const begin = promptOf(1, 30), first = ask([...begin, 1, 2], 20);
  const running = engine.submit(first), second = ask([...begin, 3, 4, 5], 4);
  await untilStep(engine, 2);
  const answers = [await engine.submit(second).result, await running.result];
  const third = ask([...begin, 1, 2, ...answers[1].tokens.slice(0, 10), 50], 4);
  answers.push(await engine.submit(third).result, await engine.submit(first).result);
  for (const [i, options] of [second, first, third, first].entries()) {
    assert.deepEqual(answers[i].tokens, (await alone(model, options)).tokens, `${i}`);
  }
  const { steps } = engine.timeline;
  assert.deepEqual(eventsOf(steps, "admitted").map(({ reused }) => reused), [undefined, 30, 42, 31]);
  assert.deepEqual([1, 2, 3].map((request) => tokensFed(steps, request)[0]), [3, 1, 1], "one token at least");
  const scored = ask(first.prompt, 3, { promptLogprobs: true, topLogprobs: 2 }),
    { promptLogprobs, promptTopLogprobs } = await engine.submit(scored).result;
  assert.equal(
    eventsOf(engine.timeline.steps, "admitted").at(-1)!.reused,
    undefined,
    "all of it is fed for its scores",
  );
  const expected = await alone(model, scored);
  assertClose(promptLogprobs!, expected.promptLogprobs!, 1e-3, "scores");
  const idsOf = ({ promptTopLogprobs: top }: Generated) => top!.map((two) => two.map(({ id }) => id));
  assert.deepEqual(idsOf({ ...expected, promptTopLogprobs }), idsOf(expected));
});

Deno.test("rows of ended requests give way to whoever needs their place or their memory", async () => {
  using model = await tiny();
  await using roomy = new Engine({ model, maxBatch: 2 });
  await using engine = new Engine({ model, maxBatch: 2, kvCacheBytes: blocks(model, 6) });
  for (let i = 0; i < 12; i++) {
    await Promise.all([engine, roomy].map((one) => one.submit(ask(promptOf(i, 20), 2)).result));
  }
  assert.ok(roomy.kvCacheBytes <= blocks(model, 8), "two rows of two blocks, and as much room at most");
  assert.equal((await engine.submit(ask(promptOf(50, 40), 56)).result).tokens.length, 56);
  assert.deepEqual(order(engine.timeline.steps, "preempted"), []);
});

Deno.test("n answers come from one prefill, and are those that generateBatch gives", async () => {
  using model = await tiny();
  for (const maxBatch of [8, 2, 1]) {
    await using engine = new Engine({ model, maxBatch });
    const options = ask(promptOf(3, 25), 12, { temperature: 1, seed: 4 });
    const answers = await Promise.all(engine.submitAll(options, 4).map(({ result }) => result));
    const { prompt, ...rest } = options;
    const expected = await generateBatch(model, padBatch([prompt], { padTokenId: 0 }), { ...rest, n: 4 });
    assert.deepEqual(answers.map(({ tokens }) => tokens), expected.map(({ tokens }) => tokens));
    const prefilled = engine.timeline.steps.flatMap(({ rows }) => rows.filter(({ phase }) => phase === "prefill"));
    assert.equal(prefilled.reduce((sum, { tokens }) => sum + tokens, 0), 25 + 3, `maxBatch ${maxBatch}`);
    const unseeded = engine.submitAll({ ...options, seed: undefined }, 3).map(({ answer }) => answer.seed);
    assert.equal(new Set(unseeded).size, 1, "one seed draws all of them again");
  }
});

Deno.test("a cancelled request's seat is free by the next step, and one that waits leaves the queue", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, maxBatch: 1 });
  const [first, second, third] = [0, 1, 2].map((i) => engine.submit(ask(promptOf(i, 4), 30)));
  await untilStep(engine, 5);
  second.cancel();
  assert.equal(engine.waiting, 1);
  first.cancel(new Error("enough"));
  const at = engine.timeline.count;
  await assert.rejects(first.result, /enough/);
  await assert.rejects(second.result, { name: "AbortError" });
  await untilStep(engine, at + 2);
  const after = engine.timeline.steps.slice(at).filter(({ rows }) => rows.every(({ request }) => request !== 0));
  assert.ok(after[0].step <= at + 1, "the step under way is its last");
  assert.deepEqual(after[0].rows.map(({ request, seat }) => [request, seat]), [[2, 0]]);
  assert.deepEqual((await third.result).tokens, (await alone(model, ask(promptOf(2, 4), 30))).tokens);

  const signal = AbortSignal.abort(new Error("already"));
  await assert.rejects(engine.submit(ask([1], 3, { signal })).result, /already/);
  const controller = new AbortController(), later = engine.submit(ask([1], 90, { signal: controller.signal }));
  await untilStep(engine, engine.timeline.count + 2);
  controller.abort(new Error("by signal"));
  await assert.rejects(later.result, /by signal/);
  const left = engine.submit(ask([2], 90));
  for await (const _ of left.stream) break;
  await assert.rejects(left.result, { name: "AbortError" });
  await engine.drain();
  assert.deepEqual(order(engine.timeline.steps, "cancelled"), [0, 4, 5], "those that had a seat");
});

Deno.test("a stream gives an answer's tokens, texts and log-probabilities as they come, to each reader from the first", async () => {
  const [backend] = backends.working;
  await tf.setBackend(backend.name);
  using model = await loadGPT2("models/small", { backend });
  const tokenizer = await AutoTokenizer.fromPretrained("models/small");
  await using engine = new Engine({ model });
  const options: SubmitOptions = {
    ...{ prompt: tokenizer.encode("The quick brown fox"), maxTokens: 12, tokenizer, logprobs: true, topLogprobs: 2 },
  };
  const plain = engine.submit({ ...options, logprobs: false, topLogprobs: 0 }),
    { stream, result } = engine.submit(options);
  let arrived = 0;
  for await (const { text } of stream) {
    assert.equal(typeof text, "string");
    if (++arrived === 1) assert.ok(engine.timeline.count < 12, "long before the end");
  }
  const pieces = await Array.fromAsync(stream), answer = await result;
  assert.deepEqual(pieces.map(({ token }) => token), answer.tokens);
  assert.equal(pieces.map(({ text }) => text).join(""), answer.text);
  assert.deepEqual(pieces.map(({ logprob }) => logprob), answer.logprobs);
  assert.deepEqual(pieces.map(({ top }) => top), answer.topLogprobs);
  const expected = await alone(model, options);
  assert.deepEqual([answer.tokens, answer.text], [expected.tokens, expected.text]);
  assertClose(answer.logprobs!, expected.logprobs!, 1e-3, "log-probabilities");
  const own = await plain.result;
  assert.deepEqual([own.text, own.logprobs, own.topLogprobs], [answer.text, undefined, undefined], "not asked for");
  const stop = answer.text!.slice(10, 14), stopped = engine.submit({ ...options, stop });
  assert.equal((await stopped.result).text, answer.text!.slice(0, answer.text!.indexOf(stop)));
  assert.equal((await Array.fromAsync(stopped.stream)).map(({ text }) => text).join(""), (await stopped.result).text);
});

Deno.test("a full queue refuses with QueueFull, and ready() waits until there is room", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, maxBatch: 1, maxQueue: 2 });
  const results = [0, 1].map((i) => engine.submit(ask(promptOf(i, 3), 4)).result);
  assert.throws(() => engine.submit(ask([1], 1)), QueueFull);
  assert.throws(() => engine.submitAll(ask([1], 1), 2), /Cannot take 2 requests: 2 wait, and maxQueue is 2/);
  for (let i = 2; i < 12; i++) { // a caller that has more than fits
    await engine.ready();
    results.push(engine.submit(ask(promptOf(i, 3), 4)).result);
    assert.ok(engine.waiting <= 2);
  }
  assert.equal((await Promise.all(results)).length, 12);
  await assert.rejects(engine.ready(3), /n 3: it must be a whole number from 1 to 2/);
});

Deno.test("a request whose step throws fails alone, and so does one whose tokenizer does", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, maxBatch: 6 });
  const step = Runner.prototype.step;
  using _ = replaced(Runner.prototype, "step", {
    value(this: Runner, ...[cache, feeds, options]: Parameters<typeof step>) {
      if (feeds.some(({ row, tokens }) => row.length === 0 && tokens[0] === 66)) throw new Error("66 cannot be");
      return step.call(this, cache, feeds, options);
    },
  });
  const asked = [0, 1, 2].map((i) => ask(promptOf(i, 6), 10, { temperature: 1, seed: i }));
  const good = asked.map((options) => engine.submit(options)), bad = engine.submit(ask([66, 1], 5));
  await assert.rejects(bad.result, /66 cannot be/);
  await assert.rejects(Array.fromAsync(bad.stream), /66 cannot be/);
  const tokenizer = await AutoTokenizer.fromPretrained("models/small");
  const stream = tokenizer.stream.bind(tokenizer);
  const broken = Object.assign(Object.create(tokenizer), {
    stream: () =>
      Object.assign(stream(), {
        push: () => {
          throw new Error("no such text");
        },
      }), // deno-fmt-ignore-line
  });
  await assert.rejects(engine.submit(ask([3, 1], 5, { tokenizer: broken })).result, /no such text/);
  for (const [i, { result }] of good.entries()) {
    assert.deepEqual((await result).tokens, (await alone(model, asked[i])).tokens);
  }
  await engine.drain();
  assert.deepEqual(order(engine.timeline.steps, "failed"), [3, 4]);
});

Deno.test("when the cache itself fails, all requests hear of it, and the engine takes no more", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, maxBatch: 2 });
  const results = [0, 1, 2, 3].map((i) => engine.submit(ask(promptOf(i, 9), 20)).result);
  await untilStep(engine, 2);
  using _ = replaced(KvCache.prototype, "reserve", {
    value() {
      throw new Error("out of memory");
    },
  });
  for (const result of results) await assert.rejects(result, /out of memory/);
  assert.throws(() => engine.submit(ask([1], 1)), /it failed: out of memory. Make another engine/);
});

Deno.test("drain answers all that was taken, stop cancels it, and both refuse what comes after", async () => {
  using model = await tiny();
  const before = tf.memory().numTensors;
  for (const way of ["drain", "stop"] as const) {
    await using engine = new Engine({ model, maxBatch: 2 });
    const results = [0, 1, 2, 3].map((i) => engine.submit(ask(promptOf(i, 9), 8)).result);
    await untilStep(engine, 2);
    const settled = Promise.allSettled(results);
    await engine[way]();
    const statuses = (await settled).map(({ status }) => status);
    assert.deepEqual(new Set(statuses), new Set([way === "drain" ? "fulfilled" : "rejected"]));
    assert.equal(engine.seated + engine.waiting, 0);
    assert.throws(() => engine.submit(ask([1], 1)), /Cannot take a request: the engine was .* Make another engine/);
    await engine.ready();
  }
  assert.equal(tf.memory().numTensors, before, "with the captured steps that belong to the model");
});

Deno.test("thousands of tiny requests leave the number of tensors and the resident memory where they were", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, maxBatch: 16, kvCacheBytes: blocks(model, 24), timelineSteps: 64 });
  const run = async (count: number) => {
    const pending: Promise<unknown>[] = [];
    for (let i = 0; i < count; i++) {
      await engine.ready();
      const answering = engine.submit(ask(promptOf(i, 1 + i % 12), 1 + i % 5));
      pending.push(answering.result.catch(() => {}));
      if (i % 10 === 0) answering.cancel();
    }
    await Promise.all(pending);
    await engine.submit(ask(promptOf(1, 12), 1)).result;
    await collectGarbage();
    const { rss, heapTotal } = Deno.memoryUsage(); // JavaScript's heap swings by more than what is looked for here
    return { tensors: tf.memory().numTensors, megabytes: (rss - heapTotal) / 1e6 };
  };
  await run(2000);
  const before = await run(100), cache = engine.kvCacheBytes;
  const after = await run(full ? 100_000 : 4000);
  console.log({ before, after, cache });
  assert.ok(Math.abs(after.tensors - before.tensors) < 40, "of rows that are kept, more or fewer buckets");
  assert.equal((await openTensorflow()).collectedTensors, 0, "tensors were forgotten");
  assert.ok(after.megabytes < before.megabytes + 30);
  assert.ok(engine.kvCacheBytes <= blocks(model, 24));
});

Deno.test("a timeline keeps the last steps, as JSON and as trace events that do not overlap on a thread", async () => {
  using model = await tiny();
  await using engine = new Engine({ model, maxBatch: 3, timelineSteps: 20 });
  const heard: StepRecord[] = [], listening = engine.timeline.listen((step) => heard.push(step));
  const asked = [0, 1, 2, 3, 4, 5].map((i) => engine.submit(ask(promptOf(i, 9), 20)));
  await Promise.all(asked.map(({ result }) => result));
  const answered = heard.flatMap(({ rows }) => rows.filter(({ answered }) => answered));
  assert.equal(answered.length, 6 * 20, "each token of an answer came of a row of a step");
  for (const { times: { asked: from, firstToken, lastToken } } of asked) {
    assert.ok(from <= firstToken! && firstToken! < lastToken! && lastToken! <= performance.now());
  }
  await engine.drain();
  assert.deepEqual(heard.slice(-20), engine.timeline.steps);
  listening[Symbol.dispose]();
  const before = heard.length;
  const { timeline } = engine, { steps } = timeline, { count } = timeline;
  assert.deepEqual(steps.map(({ step }) => step), Array.from({ length: 20 }, (_, i) => count - 20 + i));
  assert.deepEqual(JSON.parse(JSON.stringify(timeline)), { steps: JSON.parse(JSON.stringify(steps)) });
  const events = timeline.toTraceEvents(), threads = events.filter(({ ph }) => ph === "M");
  assert.deepEqual(threads.map(({ args }) => args!.name), ["engine", "seat 0", "seat 1", "seat 2"]);
  for (const { tid } of threads) {
    const lasting = events.filter((event) => event.ph === "X" && event.tid === tid);
    assert.ok(lasting.length >= 10);
    lasting.reduce((before, event) => {
      assert.ok(event.ts >= before.ts + before.dur! - 1e-3 && event.dur! >= 0, `${event.name} after ${before.name}`);
      return event;
    });
  }
  assert.ok(events.every(({ ph, s }) => (ph === "i") === (s === "t")));
  const rows = steps.reduce((sum, { rows }) => sum + rows.length, 0);
  assert.equal(events.filter(({ ph, tid }) => ph === "X" && tid > 0).length, rows);
  assert.equal(events.filter(({ ph }) => ph === "i").length, steps.reduce((sum, { events }) => sum + events.length, 0));
  assert.deepEqual(new Timeline(3).steps, []);
  timeline.add(steps[0]);
  assert.deepEqual([timeline.count, heard.length], [count + 1, before], "nothing is heard any more");
});

testOnEach(backends, "requests of all kinds get what they get alone", async (backend) => {
  using model = await loadGPT2(folder, { backend });
  const { asked, steps } = await randomWork(model, { seed: 3, requests: 12 });
  assert.deepEqual(await differing(model, asked), []);
  assert.ok(steps.length > 20 && asked.filter(({ answer }) => answer).length > 5);
});

Deno.test("compiled by XLA: requests of all kinds get what they get alone", async () => {
  using model = await loadGPT2(folder, { backend: await compiledByXla() });
  const { asked } = await randomWork(model, { seed: 3, requests: 5 });
  using reference = await loadGPT2(folder, { backend: await useBackend("tensorflow") }); // compiles nothing
  assert.deepEqual(await differing(reference, asked), []);
});
