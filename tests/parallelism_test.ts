import assert from "node:assert/strict";
import { useBackend } from "../lib/backend/select.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { generateBatch } from "../lib/engine/generate.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { calibrate, waysToSpread } from "../lib/bench/calibrate.ts";
import { parallelismFor } from "../lib/engine/parallelism.ts";
import { storedPlan, storePlan } from "../lib/engine/stored_plans.ts";
import { assertClose } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const backend = await useBackend("tensorflow");
const model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });

Deno.test("answers do not depend on lanes and threads", async () => {
  const rows = Array.from({ length: 7 }, (_, i) => Array.from({ length: 1 + 3 * i }, (_, j) => (5 * i + 7 * j) % 97));
  const inputs = padBatch(rows, { padTokenId: 0 }), options = { maxTokens: 40, ignoreEos: true, logprobs: true };
  const expected = await generateBatch(model, inputs, { ...options, parallelism: { lanes: 1, threads: 1 } });
  for (const [lanes, threads] of [[1, 2], [2, 1], [3, 1], [7, 1], [16, 1]]) {
    const answers = await generateBatch(model, inputs, { ...options, parallelism: { lanes, threads } });
    for (const [i, { tokens, logprobs }] of answers.entries()) {
      assert.deepEqual(tokens, expected[i].tokens, `${lanes} lanes of ${threads} threads, row ${i}`);
      assertClose(logprobs!, expected[i].logprobs!, 1e-4, `${lanes} lanes of ${threads} threads, row ${i}`);
    }
  }
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

Deno.test("calibration tries batch sizes and keeps what was best for this model", async () => {
  const cache = Deno.env.get("OMNIBUS_CACHE"), folder = await Deno.makeTempDir();
  try {
    Deno.env.set("OMNIBUS_CACHE", folder);
    assert.equal(await storedPlan(model), null);
    const plan = await calibrate(model, { batchSizes: [1, 4] });
    assert.deepEqual(plan.map(({ batchSize }) => batchSize), [1, 4]);
    for (const { batchSize, lanes, threads } of plan) {
      assert.ok(waysToSpread(backend.threads, batchSize).some((way) => way.lanes === lanes && way.threads === threads));
    }
    await storePlan(model, plan);
    using again = await loadGPT2(await writeTinyModel({ seed: 9 }), { backend });
    assert.deepEqual(Runner.of(again).plan, plan);
    using other = await loadGPT2(await writeTinyModel({ seed: 9, config: { n_layer: 1 } }), { backend });
    assert.deepEqual(Runner.of(other).plan, []);
  } finally {
    if (cache === undefined) Deno.env.delete("OMNIBUS_CACHE");
    else Deno.env.set("OMNIBUS_CACHE", cache);
  }
});
