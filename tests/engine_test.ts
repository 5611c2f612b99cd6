/** The engine: whatever its scheduler does, each request gets what it gets alone; and what its scheduler may and may not do. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { Engine, QueueFull, type SubmitOptions } from "../lib/engine/engine.ts";
import { generateBatch } from "../lib/engine/generate.ts";
import { Job } from "../lib/engine/job.ts";
import { KvCache } from "../lib/engine/kv_cache.ts";
import { byPriority, firstCome, shortestPrompt } from "../lib/engine/policy.ts";
import { Runner } from "../lib/engine/runner.ts";
import { SampledRow } from "../lib/engine/sampled_row.ts";
import { type StepRecord, Timeline } from "../lib/engine/timeline.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { openTensorflow } from "../lib/tensorflow/tfjs/backend.ts";
import { tensorflowOnGpu } from "../lib/tensorflow/gpu.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import { testOnEach, workingBackends } from "./_support/backends.ts";
import { alone, type Asked, randomWork, untilStep } from "./_support/engine_workloads.ts";
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

/** How many of the answers differ from those that the requests get alone. */
async function differing(model: Awaited<ReturnType<typeof tiny>>, asked: readonly Asked[]): Promise<string[]> {
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
  console.log(seen);
  assert.deepEqual(wrong, []);
  for (const [what, count] of Object.entries(seen)) assert.ok(count >= batches, `${what}: ${count}`);
});

/** Replaces what an object has by something else, until it is disposed. */
function replaced<T extends object>(object: T, key: keyof T, descriptor: PropertyDescriptor): Disposable {
  const before = Object.getOwnPropertyDescriptor(object, key)!;
  Object.defineProperty(object, key, { configurable: true, ...descriptor });
  return { [Symbol.dispose]: () => void Object.defineProperty(object, key, before) };
}

const sharedWith = Job.prototype.sharedWith, fork = KvCache.prototype.fork, rewind = KvCache.prototype.rewind;
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
      value(this: KvCache, ...[row, length = row.length, group]: Parameters<typeof fork>) {
        const copy = fork.call(this, row, length - 1, group);
        copy.length = length;
        return copy;
      },
    }),
  "a row taken over that is not rewound": () =>
    replaced(KvCache.prototype, "rewind", {
      value(this: KvCache, ...[row, length]: Parameters<typeof rewind>) {
        rewind.call(this, row, length);
        row.length = Math.min(length + 1, row.length + 1);
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
