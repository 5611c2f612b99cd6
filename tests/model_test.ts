import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { seededRandom } from "../lib/util/random.ts";
import { assertClose, cacheFor, distance, feed, logitsOf } from "./_support/logits.ts";
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

Deno.test("a prompt's logits are the same in any batch as alone", () => {
  for (const [m, model] of tiny.entries()) {
    for (const rows of randomBatches(1 + m, 20)) {
      const together = logitsOf(model, rows);
      for (const [i, row] of rows.entries()) {
        assertClose(together[i], logitsOf(model, [row])[0], TOLERANCE, `model ${m}, row ${i} of ${rows.length}`);
      }
    }
  }
});

Deno.test("control: without the mask, padding changes the logits", () => {
  const [model] = tiny;
  const rows = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14]];
  const [full, padded] = logitsOf(model, rows, { ignorePadding: true });
  assertClose(full, logitsOf(model, [rows[0]])[0], TOLERANCE, "the row without padding");
  assert.ok(distance(padded, logitsOf(model, [rows[1]])[0]) > 100 * TOLERANCE);
});

Deno.test("sixteen steps with the cache give the logits that the whole text gives without it", () => {
  for (const [m, model] of tiny.entries()) {
    for (const rows of randomBatches(3 + m, 4)) {
      using cache = cacheFor(model, rows);
      let texts = rows, logits = feed(model, cache, padBatch(rows, { padTokenId: 0 }).inputIds);
      for (let step = 0; step < 16; step++) {
        const uncached = logitsOf(model, texts);
        logits.forEach((row, i) => assertClose(row, uncached[i], TOLERANCE, `model ${m}, step ${step}, row ${i}`));
        const next = logits.map((row) => row.indexOf(Math.max(...row)));
        texts = texts.map((text, i) => [...text, next[i]]);
        logits = feed(model, cache, next.map((id) => [id]));
      }
    }
  }
});

Deno.test("a prompt may be fed in stretches", () => {
  const [model] = tiny;
  const rows = padBatch([[1, 2, 3, 4, 5, 6, 7, 8, 9], [10, 11, 12]], { padTokenId: 0 }).inputIds;
  const whole = logitsOf(model, [[1, 2, 3, 4, 5, 6, 7, 8, 9], [10, 11, 12]]);
  for (const stretch of [1, 2, 5, 8]) {
    using cache = cacheFor(model, [rows[0], rows[1].slice(6)]);
    let logits: number[][] = [];
    for (let i = 0; i < 9; i += stretch) logits = feed(model, cache, rows.map((row) => row.slice(i, i + stretch)));
    logits.forEach((row, i) => assertClose(row, whole[i], TOLERANCE, `stretches of ${stretch}, row ${i}`));
  }
});

Deno.test("rows of padding stay finite, so they cannot spoil anything", () => {
  const [model] = tiny;
  using cache = cacheFor(model, [[1, 2, 3, 4], [5]]);
  for (const logits of feed(model, cache, [[1, 2], [0, 0]])) assert.ok(logits.every(Number.isFinite));
});

Deno.test("layers do not share weights: two layers' caches differ on the same token", () => {
  const [model] = tiny;
  using cache = cacheFor(model, [[7]]);
  feed(model, cache, [[7]]);
  const [first, second] = cache.lanes[0].tensors.keys.map((keys) => Array.from(keys.dataSync().subarray(0, 8)));
  assert.ok(distance(first, second) > 0.01);
});

Deno.test("every form of the hub's checkpoints gives the same logits", async () => {
  const prompt = [[1, 2, 3, 4, 5]];
  const [expected] = logitsOf(tiny[0], prompt);
  for (const prefix of [false, true]) {
    for (const buffers of [false, true]) {
      using model = await loadGPT2(await writeTinyModel({ seed: 1, prefix, buffers }), { backend });
      assertClose(logitsOf(model, prompt)[0], expected, 0, `prefix ${prefix}, buffers ${buffers}`);
    }
  }
  for (const [dtype, tolerance] of [["F16", 0.05], ["BF16", 0.4]] as const) {
    using model = await loadGPT2(await writeTinyModel({ seed: 1, dtype }), { backend });
    const [logits] = logitsOf(model, prompt);
    assertClose(logits, expected, tolerance, dtype);
    assert.ok(distance(logits, expected) > 1e-5, `${dtype} was really rounded`);
  }
});

Deno.test("attention scores may be scaled by layer, as config.json says", async () => {
  const folder = await writeTinyModel({ seed: 1, config: { scale_attn_by_inverse_layer_idx: true } });
  using model = await loadGPT2(folder, { backend });
  assert.ok(distance(logitsOf(model, [[1, 2, 3]])[0], logitsOf(tiny[0], [[1, 2, 3]])[0]) > 100 * TOLERANCE);
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
    logitsOf(model, [[1, 2, 3]]);
    assert.ok(tf.memory().numTensors > before);
  }
  assert.equal(tf.memory().numTensors, before);
});
