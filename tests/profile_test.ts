import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { ensureOnednn } from "../lib/onednn/install.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { profileStep } from "../lib/bench/profile.ts";
import { TINY, writeTinyModel } from "./_support/tiny_models.ts";

Deno.test("a profile says what a step did in each part of the model, and frees what it needed", async () => {
  const backend = await useBackend("tensorflow");
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  const before = tf.memory().numTensors;
  const parallelism = { lanes: Math.min(2, navigator.hardwareConcurrency), threads: 1 };
  const { stepSeconds, rows, threads, entries } = await profileStep(model, { batchSize: 5, slots: 16, parallelism });
  assert.deepEqual([rows, threads, tf.memory().numTensors], [3, 1, before]);
  assert.deepEqual([...new Set(entries.map(({ part }) => part))].sort(), ["attn", "embed", "head", "mlp", "step"]);
  const softmax = entries.find(({ part, op }) => part === "attn" && op === "Softmax")!;
  assert.equal(softmax.count % TINY.n_layer, 0); // one a layer and group
  const longest = entries.map(({ seconds }) => seconds);
  assert.deepEqual(longest, longest.toSorted((a, b) => b - a));
  assert.ok(stepSeconds > 0 && longest.every((seconds) => seconds >= 0));
});

Deno.test({
  name: "oneDNN's profile names its calls by the parts of the model",
  ignore: (await ensureOnednn().catch(() => null)) === null,
  async fn() {
    using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend: await useBackend("onednn") });
    const before = tf.memory().numTensors, { n_layer } = model.config;
    const { stepSeconds, entries } = await profileStep(model, { batchSize: 5, slots: 16 });
    assert.equal(tf.memory().numTensors, before);
    const counts = Object.fromEntries(entries.map(({ part, op, count }) => [`${part} ${op}`, count]));
    const each = {
      "attn product": 2,
      "attn write": 2,
      "attn scores": 1,
      "attn softmax": 1,
      "attn weigh": 1,
      "mlp product": 2,
    };
    for (const [name, count] of Object.entries(each)) assert.equal(counts[name], count * n_layer, name);
    assert.deepEqual([counts["head product"], counts["embed embed"], counts["head norm"]], [1, 2, 1]);
    const total = entries.reduce((sum, { seconds }) => sum + seconds, 0);
    assert.ok(stepSeconds > 0 && total > 0 && total <= model.backend.threads * stepSeconds);
  },
});

Deno.test("where there is no trace, profiling is refused", async () => {
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend: await useBackend("cpu") });
  await assert.rejects(
    profileStep(model, { batchSize: 1, slots: 16 }),
    /Cannot profile on the cpu backend.*Use tensorflow/,
  );
});
