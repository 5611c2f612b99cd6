import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { parseConfig } from "../lib/gpt2/config.ts";
import { KvCache } from "../lib/engine/kv_cache.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { checkMemory, prefillChunk } from "../lib/engine/memory.ts";
import { step } from "../lib/engine/step.ts";
import { assertClose } from "./_support/logits.ts";
import { TINY, writeTinyModel } from "./_support/tiny_models.ts";

const backend = await useBackend("tensorflow");
const config = parseConfig({ model_type: "gpt2", ...TINY }, "tiny");

Deno.test("a cache takes the memory that the formula says", () => {
  for (const lanes of [1, 3]) {
    const before = tf.memory().numBytes;
    using cache = KvCache.allocate(config, [0, 1, 2, 0, 5], 40, { parallelism: { lanes, threads: 1 } });
    const indices = cache.lanes.flatMap(({ tensors: { padding, slots, rowStarts } }) => [padding, slots, ...rowStarts]);
    const rest = indices.reduce((bytes, tensor) => bytes + 4 * tensor.size, 0);
    assert.equal(tf.memory().numBytes - before - rest, KvCache.bytes(config, 5, 40));
  }
});

Deno.test("every row is in one lane, in order, and lanes differ by a row at most", () => {
  for (const [rows, lanes] of [[1, 1], [5, 2], [7, 3], [2, 4], [128, 16]]) {
    using cache = KvCache.allocate(config, Array.from({ length: rows }, (_, i) => i % 3), 4, {
      parallelism: { lanes, threads: 1 },
    });
    const all = Array.from({ length: rows }, (_, i) => i);
    assert.deepEqual(cache.lanes.flatMap((lane) => lane.rowsOf(all)), all);
    const sizes = cache.lanes.map((lane) => lane.padding.length);
    assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1 && Math.min(...sizes) >= 1, `${sizes}`);
    assert.deepEqual(cache.lanes.flatMap((lane) => lane.padding), cache.padding);
  }
});

Deno.test("a cache that grows gives what one gives that was large from the start", async () => {
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  const run = async (capacity: number) => {
    using cache = model.allocateCache([0, 2], capacity, { lanes: 1, threads: 1 });
    const ids: number[][] = [], logprobs: number[] = [];
    let tokens = [[1, 2, 3], [0, 0, 4]];
    for (let i = 0; i < 60; i++) {
      const next = await step(model, cache, tokens, { logprobs: true });
      tokens = next.ids.map((id) => [id]);
      ids.push(next.ids);
      logprobs.push(...next.logprobs!);
    }
    return { ids, logprobs, capacity: cache.capacity };
  };
  const grown = await run(3), large = await run(62);
  assert.deepEqual([grown.capacity, large.capacity], [64, 64]);
  assert.deepEqual(grown.ids, large.ids);
  assertClose(grown.logprobs, large.logprobs, 1e-4, "log-probabilities");
});

Deno.test("positions count from each row's first real token, and padding looks up position 0", () => {
  using cache = KvCache.allocate(config, [0, 3], 7);
  const [lane] = cache.lanes;
  assert.deepEqual(lane.positionIds(0, 5), [[0, 1, 2, 3, 4], [0, 0, 0, 0, 1]]);
  assert.deepEqual(lane.positionIds(7, 1), [[7], [4]]);
});

Deno.test("long prompts of large batches are prefilled in stretches; what cannot fit is refused beforehand", () => {
  const gpt2 = parseConfig({ model_type: "gpt2" }, "gpt2");
  assert.equal(prefillChunk(gpt2, 1, 7), 7);
  assert.equal(prefillChunk(gpt2, 128, 7), 7);
  const chunk = prefillChunk(gpt2, 128, 1000);
  assert.ok(chunk >= 1 && chunk < 100, `${chunk}`);
  checkMemory({ config: gpt2, backend }, 1, 7, 10);
  assert.throws(
    () => checkMemory({ config: gpt2, backend }, 100_000, 512, 512),
    /needs \d+ bytes .* of which the KV cache/,
  );
});

Deno.test("a row's keys and values read the same in a batch, in lanes and in groups of heads as alone", async () => {
  const folder = await writeTinyModel({ seed: 1 }), text = [5, 6, 7, 8];
  const read = async (groups: number, padding: number[], row: number, lanes: number) => {
    using model = await loadGPT2(folder, { backend: { ...backend, groups } });
    using cache = model.allocateCache(padding, 6, { lanes, threads: 1 });
    const width = text.length + padding[row];
    await step(model, cache, padding.map((_, i) => Array.from({ length: width }, (_, j) => text[j - padding[i]] ?? 0)));
    const before = tf.memory().numTensors;
    const layers = [await cache.read(row, 0), await cache.read(row, 1)];
    assert.equal(tf.memory().numTensors, before);
    await assert.rejects(cache.read(row, 2), {
      message: `Cannot read layer 2 of row ${row}: the cache has 2 layers and ${padding.length} rows.`,
    });
    await assert.rejects(cache.read(padding.length, 0), RangeError);
    return layers.flatMap(({ keys, values }) => [keys, values]);
  };
  const alone = await read(1, [0], 0, 1);
  assert.deepEqual(alone.map((rows) => [rows.length, rows[0].length]), Array(4).fill([text.length, TINY.n_embd]));
  for (const groups of [1, 3]) {
    for (const lanes of [1, 2]) {
      const inBatch = await read(groups, [0, 1, 2], 2, lanes);
      const what = `${groups} groups, ${lanes} lanes`;
      inBatch.forEach((rows, i) => rows.forEach((vector, j) => assertClose(vector, alone[i][j], 1e-5, what)));
    }
  }
  const [first, , second] = alone;
  assert.notDeepEqual(first, second); // layers are told apart
});
