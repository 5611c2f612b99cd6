import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { generateTokenKvCaching } from "../lib/engine/generate.ts";
import { KvCache } from "../lib/engine/kv_cache.ts";
import { Runner } from "../lib/engine/runner.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { seededRandom } from "../lib/util/random.ts";
import { assertClose, distance, logitsOf } from "./_support/logits.ts";
import { TINY, writeTinyModel } from "./_support/tiny_models.ts";

const TOLERANCE = 2e-4;
const backend = await useBackend("tensorflow");

/** Models of different sizes; the second has heads and layers to spare. */
const tiny = [
  await loadGPT2(await writeTinyModel({ seed: 1 }), { backend }),
  await loadGPT2(
    await writeTinyModel({ seed: 2, config: { n_embd: 40, n_layer: 3, n_head: 5, n_inner: 64, vocab_size: 131 } }),
    { backend },
  ),
];

/** Batches of 1 to 16 prompts of 1 to 60 tokens. */
function* randomBatches(seed: number, count: number): Generator<number[][]> {
  const random = seededRandom(seed), upTo = (n: number) => 1 + Math.floor(random() * n);
  for (let i = 0; i < count; i++) {
    yield Array.from({ length: upTo(16) }, () => Array.from({ length: upTo(60) }, () => upTo(TINY.vocab_size) - 1));
  }
}

Deno.test("a prompt's logits are the same in any batch as alone", async () => {
  for (const [m, model] of tiny.entries()) {
    for (const rows of randomBatches(1 + m, 20)) {
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

Deno.test("sixteen steps with the cache give the logits that the whole text gives without it", async () => {
  for (const [m, model] of tiny.entries()) {
    for (const prompts of randomBatches(3 + m, 4)) {
      using cache = new KvCache(model);
      const rows = cache.admit({ slots: prompts.map(({ length }) => length) }), runner = Runner.of(model);
      let texts = prompts, logits = await runner.logits(cache, prompts.map((tokens, i) => ({ row: rows[i], tokens })));
      for (let step = 0; step < 16; step++) {
        const uncached = await logitsOf(model, texts);
        logits.forEach((row, i) => assertClose([...row], uncached[i], TOLERANCE, `model ${m}, step ${step}, row ${i}`));
        const next = logits.map((row) => row.indexOf(Math.max(...row)));
        texts = texts.map((text, i) => [...text, next[i]]);
        logits = await runner.logits(cache, next.map((id, i) => ({ row: rows[i], tokens: [id] })));
      }
    }
  }
});

Deno.test("a prompt may be fed in chunks", async () => {
  const [model] = tiny, runner = Runner.of(model), prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9];
  const [whole] = await logitsOf(model, [prompt]);
  for (const chunk of [1, 2, 5, 8]) {
    using cache = new KvCache(model);
    const [row, other] = cache.admit({ slots: [9, 9] });
    let logits: Float32Array[] = [];
    for (let i = 0; i < 9; i += chunk) {
      const feeds = [{ row, tokens: prompt.slice(i, i + chunk) }, { row: other, tokens: [i], wanted: [] }];
      logits = await runner.logits(cache, feeds);
      assert.equal(logits.length, 1); // nothing is wanted of the other
    }
    assertClose([...logits[0]], whole, TOLERANCE, `chunks of ${chunk}`);
  }
});

Deno.test("logits may be wanted after any of the tokens, and more than once", async () => {
  const [model] = tiny, prompts = [[1, 2, 3, 4, 5], [6, 7, 8]], wanted = [[0, 4, 4, 2], [1]];
  using cache = new KvCache(model);
  const rows = cache.admit({ slots: [5, 3] });
  const logits = await Runner.of(model).logits(
    cache,
    prompts.map((tokens, i) => ({ row: rows[i], tokens, wanted: wanted[i].map((after) => ({ after })) })),
  );
  const expected = wanted.flatMap((places, i) => places.map((place) => prompts[i].slice(0, place + 1)));
  assert.equal(logits.length, expected.length);
  for (const [i, text] of expected.entries()) {
    assertClose([...logits[i]], (await logitsOf(model, [text]))[0], TOLERANCE, `after ${text}`);
  }
});

Deno.test("layers do not share weights: two layers' caches differ on the same token", async () => {
  const { cache } = await generateTokenKvCaching(tiny[0], { inputIds: [[7]], attentionMask: [[1]] });
  const [first, second] = [await cache.read(0, 0), await cache.read(0, 1)];
  cache[Symbol.dispose]();
  assert.ok(distance(first.keys[0], second.keys[0]) > 0.01);
});

Deno.test("every form of the hub's checkpoints gives the same logits", async () => {
  const prompt = [[1, 2, 3, 4, 5]];
  const [expected] = await logitsOf(tiny[0], prompt);
  for (const prefix of [false, true]) {
    for (const buffers of [false, true]) {
      using model = await loadGPT2(await writeTinyModel({ seed: 1, prefix, buffers }), { backend });
      assertClose((await logitsOf(model, prompt))[0], expected, 0, `prefix ${prefix}, buffers ${buffers}`);
    }
  }
  for (const [dtype, tolerance] of [["F16", 0.05], ["BF16", 0.4]] as const) {
    using model = await loadGPT2(await writeTinyModel({ seed: 1, dtype }), { backend });
    const [logits] = await logitsOf(model, prompt);
    assertClose(logits, expected, tolerance, dtype);
    assert.ok(distance(logits, expected) > 1e-5, `${dtype} was really rounded`);
  }
});

Deno.test("attention scores may be scaled by layer, as config.json says", async () => {
  const folder = await writeTinyModel({ seed: 1, config: { scale_attn_by_inverse_layer_idx: true } });
  using model = await loadGPT2(folder, { backend });
  assert.ok(
    distance((await logitsOf(model, [[1, 2, 3]]))[0], (await logitsOf(tiny[0], [[1, 2, 3]]))[0]) > 100 * TOLERANCE,
  );
});

Deno.test("a folder that is not a model's is refused with the reason", async () => {
  await assert.rejects(loadGPT2("models/none", { backend }), /there is no readable config\.json/);
  const folder = await writeTinyModel({ seed: 1 });
  await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ model_type: "gpt2", ...TINY, n_layer: 3 }));
  await assert.rejects(loadGPT2(folder, { backend }), /there is no tensor h\.2\.ln_1\.weight/);
  await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ model_type: "gpt2", ...TINY, n_positions: 50 }));
  await assert.rejects(
    loadGPT2(folder, { backend }),
    /wpe\.weight has shape \[96,24\] and config\.json asks for \[50,24\]/,
  );
  await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ model_type: "gpt2", ...TINY, n_layer: 1 }));
  await assert.rejects(loadGPT2(folder, { backend }), /GPT-2 has no tensor h\.1\./);
  await Deno.writeTextFile(`${folder}/config.json`, "{");
  await assert.rejects(loadGPT2(folder, { backend }), /not JSON/);
  await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ model_type: "gpt2", ...TINY }));
  await Deno.remove(`${folder}/model.safetensors`);
  await assert.rejects(loadGPT2(folder, { backend }), /there is no such file/);
});

Deno.test("loading frees everything when it fails half-way", async () => {
  const before = tf.memory().numTensors;
  const folder = await writeTinyModel({ seed: 1 });
  const file = await Deno.open(`${folder}/model.safetensors`, { write: true });
  await file.truncate((await file.stat()).size - 100);
  file.close();
  await assert.rejects(loadGPT2(folder, { backend }));
  assert.equal(tf.memory().numTensors, before);
  await assert.rejects(loadGPT2("models/small", { backend, dtype: "float8" as "float32" }), /Cannot use float8 on the/);
  assert.equal(tf.memory().numTensors, before);
});

Deno.test("freeing a model frees its tensors", async () => {
  const before = tf.memory().numTensors;
  {
    using model = await loadGPT2(await writeTinyModel({ seed: 5 }), { backend });
    await logitsOf(model, [[1, 2, 3]]);
    assert.ok(tf.memory().numTensors > before);
  }
  assert.equal(tf.memory().numTensors, before);
});
