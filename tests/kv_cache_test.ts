import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import type { Caches } from "../lib/backend/ops.ts";
import { plainOps } from "../lib/backend/plain.ts";
import { useBackend } from "../lib/backend/select.ts";
import { parseConfig } from "../lib/gpt2/config.ts";
import { KvCache } from "../lib/engine/kv_cache.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { checkMemory, prefillChunk } from "../lib/engine/memory.ts";
import { Runner } from "../lib/engine/runner.ts";
import { bfloat16ToFloat32, float32ToBfloat16 } from "../lib/util/half.ts";
import { seededRandom } from "../lib/util/random.ts";
import { assertClose } from "./_support/logits.ts";
import { TINY, writeTinyModel } from "./_support/tiny_models.ts";

const backend = await useBackend("tensorflow");
const config = parseConfig({ model_type: "gpt2", ...TINY }, "tiny");

Deno.test("a cache takes the memory that the formula says", async () => {
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  for (const lanes of [1, 3]) {
    const before = tf.memory().numBytes;
    using cache = new KvCache(model, { lanes, threads: 1 });
    cache.admit({ slots: [40, 33, 48, 47, 35] });
    assert.equal(tf.memory().numBytes - before, KvCache.bytes(config, 5, 40));
    assert.equal(cache.bytes, KvCache.bytes(config, 5, 40));
  }
});

Deno.test("lanes differ by a row at most, and a row stays in its lane", async () => {
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  for (const [count, lanes] of [[1, 1], [5, 2], [7, 3], [2, 4], [128, 16]]) {
    using cache = new KvCache(model, { lanes, threads: 1 });
    const rows = cache.admit({ slots: Array(count).fill(4) });
    const laneOf = () => rows.map((row) => cache.lanes.findIndex(({ buckets }) => buckets.includes(row.bucket)));
    const lane = laneOf(), sizes = cache.lanes.map((_, i) => lane.filter((other) => other === i).length);
    assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1, `${sizes}`);
    cache.reserve(rows, rows.map((_, i) => 4 + 30 * (i % 3)));
    assert.deepEqual(laneOf(), lane);
  }
});

Deno.test("a cache that grows gives what one gives that was large from the start", async () => {
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  const run = async (slots: number) => {
    using cache = new KvCache(model);
    const rows = cache.admit({ slots: [slots, slots] }), ids: number[][] = [], logprobs: number[] = [];
    let tokens = [[1, 2, 3], [4]];
    for (let i = 0; i < 60; i++) {
      const feeds = rows.map((row, r) => ({ row, tokens: tokens[r] }));
      const next = await Runner.of(model).step(cache, feeds, { logprobs: true });
      assert.equal(cache.bytes, KvCache.bytes(config, 2, Math.max(slots, rows[0].length)));
      tokens = next.map(({ id }) => [id]);
      ids.push(next.map(({ id }) => id));
      logprobs.push(...next.map(({ logprob }) => logprob!));
    }
    return { ids, logprobs, slots: rows.map(({ bucket }) => bucket.slots) };
  };
  const grown = await run(3), large = await run(62);
  assert.deepEqual([grown.slots, large.slots], [[64, 64], [64, 64]]);
  assert.deepEqual(grown.ids, large.ids);
  assertClose(grown.logprobs, large.logprobs, 1e-4, "log-probabilities");
});

Deno.test("a cache may have more rows than a function may have arguments", async () => {
  const folder = await writeTinyModel({ seed: 1, config: { n_layer: 1, n_head: 1, n_embd: 2 } });
  using model = await loadGPT2(folder, { backend });
  using cache = new KvCache(model, { lanes: 1, threads: 1 });
  const count = 150_000, rows = cache.admit({ slots: Array(count).fill(1), length: 1 });
  cache.reserve(rows, Array(count).fill(20));
  assert.equal(cache.rows.length, count);
  assert.equal(cache.bytes, KvCache.bytes(model.config, count, 21));
});

Deno.test("rows that leave make room: a cache of which few rows are left is small", async () => {
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  using cache = new KvCache(model);
  const rows = cache.admit({ slots: Array(32).fill(10) });
  assert.equal(cache.bytes, KvCache.bytes(config, 32, 10));
  for (const row of rows.slice(2)) cache.release(row);
  assert.deepEqual(cache.rows, rows.slice(0, 2));
  assert.ok(cache.bytes <= KvCache.bytes(config, 8, 10), `${cache.bytes}`);
  for (const row of rows.slice(0, 2)) cache.release(row);
  assert.equal(cache.bytes, 0);
});

function assertSameCaches(cachedBytes: 2 | 4) {
  const shape = { layers: 2, heads: 3, headSize: 4, cachedBytes, spare: [] as tf.Tensor3D[] }, random = seededRandom(1);
  const below = (count: number) => Math.floor(count * random()), tensors = tf.memory().numTensors;
  const make = (rows: number) => [backend.ops, plainOps].map((ops) => ops.createCaches(shape, rows, 16));
  const tokens = (caches: Caches, row: number, length: number) =>
    tf.tidy(() => Array.from({ length: 4 }, (_, cache) => caches.read(cache, row, length).arraySync()));
  const seen = { within: 0, across: 0, grown: 0, reused: 0 };
  for (let round = 0; round < 40; round++) {
    const values = tf.tidy(() => tf.randomNormal([4 * 3 * 3 * 16 * 4], 0, 1, "float32", round).dataSync<"float32">());
    const bits = float32ToBfloat16(values), cells = 3 * 3 * 16 * cachedBytes / 4;
    if (cachedBytes === 2) bfloat16ToFloat32(bits, values);
    const filled = tf.tensor3d(cachedBytes === 4 ? values : new Float32Array(bits.buffer), [4, cells, 4]);
    shape.spare.unshift(filled); // what the sources take, as it is the first of the smallest
    const sources = make(3), before = shape.spare.length, caches = make(2), lengths = [0, 0];
    sources[1].adopt!(tf.tidy(() => tf.unstack(tf.tensor(values, [4, 3, 3, 16, 4])) as tf.Tensor4D[]));
    seen.reused += before - shape.spare.length;
    for (let change = 0, slots = 16; change < 12; change++) {
      const grown = random() < 0.3 ? 16 * below(4) : 0, rows = 1 + below(6), to = below(rows);
      lengths.length = Math.min(lengths.length, rows);
      for (const one of caches) one.resize(rows, slots + grown, lengths);
      [slots, seen.grown] = [slots + grown, seen.grown + Math.sign(grown)];
      while (lengths.length < rows) lengths.push(0);
      if (random() < 0.2) { for (const one of caches) one.trim(lengths); }
      const from = lengths.findIndex((length, row) => length > 0 && row !== to), within = from >= 0 && random() < 0.5;
      const move = within ? { from, to, length: lengths[from] } : { from: below(3), to, length: 1 + below(16) };
      caches.forEach((one, i) => one.copy(within ? one : sources[i], [move]));
      lengths[to] = move.length;
      seen[within ? "within" : "across"]++;
      for (const [row, length] of lengths.entries()) {
        const [mine, plain] = caches.map((one) => tokens(one, row, length));
        assert.deepEqual(mine, plain, `round ${round}, change ${change}, row ${row}`);
      }
    }
    for (const one of [...caches, ...sources]) one.dispose();
  }
  assert.ok(Object.values(seen).every((count) => count > 20), JSON.stringify(seen));
  tf.dispose(shape.spare);
  assert.equal(tf.memory().numTensors, tensors);
}

Deno.test("caches in one tensor hold what caches of a tensor each do, in memory that others used before", () => {
  assertSameCaches(4);
});

Deno.test("so do those whose numbers are bfloat16", () => {
  assertSameCaches(2);
});

Deno.test("long prompts of large batches are prefilled in stretches; what cannot fit is refused beforehand", () => {
  const gpt2 = parseConfig({ model_type: "gpt2" }, "gpt2");
  assert.equal(prefillChunk(gpt2, 1, 7), 7);
  assert.equal(prefillChunk(gpt2, 128, 7), 7);
  const chunk = prefillChunk(gpt2, 128, 1000);
  assert.ok(chunk >= 1 && chunk < 100, `${chunk}`);
  checkMemory({ config: gpt2, backend, cachedBytes: 4 }, 1, 7, 10);
  assert.throws(
    () => checkMemory({ config: gpt2, backend, cachedBytes: 4 }, 100_000, 512, 512),
    /needs \d+ bytes .* of which the KV cache/,
  );
});

Deno.test("a row's keys and values read the same in a batch, in lanes and in groups of heads as alone", async () => {
  const folder = await writeTinyModel({ seed: 1 }), text = [5, 6, 7, 8];
  const read = async (groups: number, texts: number[][], row: number, lanes: number) => {
    using model = await loadGPT2(folder, { backend: { ...backend, groups } });
    using cache = new KvCache(model, { lanes, threads: 1 });
    const rows = cache.admit({ slots: texts.map(({ length }) => length) });
    await Runner.of(model).step(cache, texts.map((tokens, i) => ({ row: rows[i], tokens })));
    const before = tf.memory().numTensors;
    const layers = [await cache.read(row, 0), await cache.read(row, 1)];
    assert.equal(tf.memory().numTensors, before);
    await assert.rejects(cache.read(row, 2), {
      message: `Cannot read layer 2 of row ${row}: the cache has 2 layers and ${texts.length} rows.`,
    });
    await assert.rejects(cache.read(texts.length, 0), RangeError);
    return layers.flatMap(({ keys, values }) => [keys, values]);
  };
  const alone = await read(1, [text], 0, 1);
  assert.deepEqual(alone.map((rows) => [rows.length, rows[0].length]), Array(4).fill([text.length, TINY.n_embd]));
  for (const groups of [1, 3]) {
    for (const lanes of [1, 2]) {
      const inBatch = await read(groups, [[1], [1, 2, 3, 4, 5, 6], text], 2, lanes);
      const what = `${groups} groups, ${lanes} lanes`;
      inBatch.forEach((rows, i) => rows.forEach((vector, j) => assertClose(vector, alone[i][j], 1e-5, what)));
    }
  }
  const [first, , second] = alone;
  assert.notDeepEqual(first, second); // layers are told apart
});
