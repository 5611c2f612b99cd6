/** The WebGPU backend's parts: kernels against sums in double precision, what a step costs, and what happens when it fails. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import type { Backend } from "../lib/backend/types.ts";
import { useBackend } from "../lib/backend/select.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { decodeStep, generateBatch, prefill } from "../lib/engine/generate.ts";
import { KvCache } from "../lib/engine/kv_cache.ts";
import { Runner } from "../lib/engine/runner.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { bfloat16ToFloat32, float32ToBfloat16 } from "../lib/util/half.ts";
import { seededNormal } from "../lib/util/random.ts";
import { type Gpu, openGpu } from "../lib/webgpu/device.ts";
import { linearKernel, sharesOf, sumKernel, takesNorm } from "../lib/webgpu/kernels/linear.ts";
import type { LinearKernelOptions } from "../lib/webgpu/kernels/linear_frame.ts";
import { chooseKernel, searchKernel, searchWords } from "../lib/webgpu/kernels/choose.ts";
import { embedKernel } from "../lib/webgpu/kernels/embed.ts";
import { normKernel } from "../lib/webgpu/kernels/norm.ts";
import { type Kernel, STEP_HEADER } from "../lib/webgpu/kernels/wgsl.ts";
import { ReadBack } from "../lib/webgpu/read_back.ts";
import { countGpuWork } from "../lib/bench/peers/gpu_work.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const { gpu, reason } = await openGpu().then(
  (gpu) => ({ gpu, reason: "" }),
  (error: Error) => ({ gpu: null, reason: ` (${error.message})` }),
);

/** A test that needs a GPU, or a program in place of one; shown as ignored where there is none. */
function gpuTest(name: string, fn: (gpu: Gpu) => Promise<void>): void {
  Deno.test({ name: name + reason, ignore: gpu === null, fn: () => fn(gpu!) });
}

/** Runs a kernel on a step of `batchSize` rows of one token, then other integers; returns buffer `result` as words. */
async function run(
  { device }: Gpu,
  { code, workgroups }: Kernel,
  integers: number[],
  buffers: readonly (Float32Array | Uint32Array)[],
  result: number,
): Promise<ArrayBuffer> {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const made = [new Int32Array(integers), ...buffers].map((values) => {
    const buffer = device.createBuffer({ size: values.byteLength, usage });
    device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
    return buffer;
  });
  const module = device.createShaderModule({ code });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
  const entries = made.map((buffer, binding) => ({ binding, resource: { buffer } }));
  const encoder = device.createCommandEncoder(), pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(...workgroups);
  pass.end();
  const readBack = new ReadBack(device), buffer = made[result + 1];
  const [bytes] = await readBack.submitAndRead(encoder, [{ buffer, byteOffset: 0, byteLength: buffer.size }]);
  for (const buffer of made) buffer.destroy();
  readBack.dispose();
  return bytes;
}

/** What a linear layer should give, in double precision. */
function reference(options: LinearKernelOptions, [x, weight, y, ...rest]: Float32Array[]): Float64Array {
  const { rows, inputs: K, outputs: M, transposed, norm, bias, gelu, accumulate, part } = options;
  const b = bias ? rest[0] : null, [gain, shift] = norm ? rest.slice(bias ? 1 : 0) : [];
  const result = Float64Array.from(y), width = part?.columns ?? M;
  for (let n = 0; n < rows; n++) {
    let row = Array.from(x.subarray(n * K, (n + 1) * K));
    if (norm) {
      const mean = row.reduce((sum, value) => sum + value, 0) / K;
      const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / K;
      row = row.map((value, k) => (value - mean) / Math.sqrt(variance + norm.epsilon) * gain[k] + shift[k]);
    }
    for (let m = 0; m < M; m++) {
      let sum = b?.[m] ?? 0;
      for (let k = 0; k < K; k++) sum += row[k] * weight[transposed ? m * K + k : k * M + m];
      if (gelu) sum = 0.5 * sum * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (sum + 0.044715 * sum ** 3)));
      const at = n * width + m + (part?.first ?? 0);
      result[at] = (accumulate ? result[at] : 0) + sum;
    }
  }
  return result;
}

/** A weight [K, M] in blocks of 4 × 4, those that are above each other side by side. */
function inBlocks(weight: Float32Array, K: number, M: number): Float32Array {
  const down = Math.ceil(K / 4), blocks = new Float32Array(16 * down * Math.ceil(M / 4));
  for (let k = 0; k < K; k++) {
    for (let m = 0; m < M; m++) {
      blocks[((m >> 2) * down + (k >> 2)) * 16 + (k % 4) * 4 + m % 4] = weight[k * M + m];
    }
  }
  return blocks;
}

const PLAIN = {
  transposed: false,
  format: "float32",
  bias: false,
  gelu: false,
  accumulate: false,
  per: "token",
} as const;
const SHAPES: LinearKernelOptions[] = [
  // few rows: each power of two, and counts between them; widths that are multiples of 4 and not
  ...[1, 2, 3, 4, 5, 8].flatMap((rows): LinearKernelOptions[] => [
    { ...PLAIN, rows, inputs: 24, outputs: 72, norm: { epsilon: 1e-5 }, bias: true },
    { ...PLAIN, rows, inputs: 96, outputs: 24, bias: true, accumulate: true },
    { ...PLAIN, rows, inputs: 18, outputs: 54, norm: { epsilon: 1e-5 }, bias: true, gelu: true },
    { ...PLAIN, rows, inputs: 21, outputs: 7 },
    { ...PLAIN, rows, inputs: 24, outputs: 97, transposed: true },
  ]),
  { ...PLAIN, rows: 1, inputs: 192, outputs: 4608, norm: { epsilon: 1e-5 }, bias: true },
  { ...PLAIN, rows: 16, inputs: 70, outputs: 131, transposed: true },
  // many rows: all sizes of tiles, with edges
  { ...PLAIN, rows: 9, inputs: 24, outputs: 72, bias: true, gelu: true },
  { ...PLAIN, rows: 33, inputs: 50, outputs: 30, bias: true, accumulate: true },
  { ...PLAIN, rows: 40, inputs: 192, outputs: 192, bias: true, accumulate: true },
  { ...PLAIN, rows: 300, inputs: 40, outputs: 1300, bias: true, gelu: true },
  { ...PLAIN, rows: 300, inputs: 36, outputs: 4300, bias: true },
  { ...PLAIN, rows: 40, inputs: 1030, outputs: 70, bias: true, accumulate: true }, // shared out
  { ...PLAIN, rows: 33, inputs: 770, outputs: 131, bias: true, gelu: true },
  { ...PLAIN, rows: 17, inputs: 24, outputs: 13001, transposed: true },
  { ...PLAIN, rows: 20, inputs: 26, outputs: 131, transposed: true },
  { ...PLAIN, rows: 120, inputs: 20, outputs: 12999, transposed: true },
  // a part of a wider result
  { ...PLAIN, rows: 3, inputs: 24, outputs: 128, transposed: true, part: { first: 128, columns: 300 } },
  { ...PLAIN, rows: 30, inputs: 24, outputs: 44, transposed: true, part: { first: 256, columns: 300 } },
];

gpuTest(
  "linear layers of all sizes, with all that may stand around them, give the sums of double precision",
  async (gpu) => {
    const names = new Set<string>(), normal = seededNormal(1);
    const random = (size: number, scale = 1) => Float32Array.from({ length: size }, () => scale * normal());
    for (const options of SHAPES) {
      for (const format of ["float32", "bfloat16"] as const) {
        const { rows, inputs: K, outputs: M, bias, norm, part } = options;
        const exact = random(K * M, 1 / Math.sqrt(K));
        if (format === "bfloat16") bfloat16ToFloat32(float32ToBfloat16(exact), exact);
        const weight = options.transposed ? exact : inBlocks(exact, K, M), bits = float32ToBfloat16(weight);
        const words = new Uint32Array(Math.ceil(bits.length / 2));
        new Uint16Array(words.buffer).set(bits);
        const rest = [...bias ? [random(M)] : [], ...norm ? [random(K), random(K)] : []];
        const x = random(rows * K), y = random(rows * (part?.columns ?? M));
        const kernel = linearKernel({ ...options, format }), operands = [x, format === "float32" ? weight : words];
        const integers = [rows, 0, ...Array(STEP_HEADER - 2).fill(0)], shares = sharesOf({ ...options, format });
        const result = async () => {
          if (shares === 1) return await run(gpu, kernel, integers, [...operands, y, ...rest], 2);
          const room = new Float32Array(shares * rows * 4 * Math.ceil(M / 4));
          const made = new Float32Array(await run(gpu, kernel, integers, [...operands, room], 2));
          return await run(gpu, sumKernel({ ...options, format }), integers, [made, y, ...rest], 1);
        };
        const actual = new Float32Array(await result());
        const expected = reference(options, [x, exact, y, ...rest]);
        const worst = actual.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
        assert.ok(worst < 2e-4, `${kernel.name}, ${rows} rows, ${format}: ${worst} apart`);
        assert.ok(actual.every(Number.isFinite), kernel.name);
        names.add(kernel.name.split(",")[0]);
      }
    }
    const kinds = ["1 rows", "8 rows", "16 rows", ...["128×128", "64×64", "32×32"].map((tile) => `tiles of ${tile}`)];
    const shared = [...names].filter((name) => name.includes("shares of"));
    assert.ok(shared.length > 0, `nothing was shared out among ${[...names].join("; ")}`);
    for (const kind of kinds) assert.ok(names.has(kind), `${kind} was not among ${[...names].join("; ")}`);
  },
);

gpuTest("layer norm of numbers far from zero keeps what tells them apart, at any width", async (gpu) => {
  const normal = seededNormal(3);
  for (const [N, K] of [[1, 24], [3, 21], [2, 768], [9, 2500]]) {
    const x = Float32Array.from({ length: N * K }, () => 1000 + normal()), y = new Float32Array(N * K);
    const [gain, shift] = [0, 1].map(() => Float32Array.from({ length: K }, normal));
    const identity = new Float32Array(K * K);
    for (let k = 0; k < K; k++) identity[k * K + k] = 1;
    const norm = { epsilon: 1e-5 }, integers = [N, N, ...Array(STEP_HEADER - 2).fill(0)];
    const layer: LinearKernelOptions = { ...PLAIN, rows: N, inputs: K, outputs: K, norm };
    const results = [
      await run(gpu, normKernel({ rows: N, width: K, ...norm, wanted: null }), integers, [x, y, gain, shift], 1),
    ];
    if (takesNorm(N)) {
      results.push(await run(gpu, linearKernel(layer), integers, [x, inBlocks(identity, K, K), y, gain, shift], 2));
    }
    const expected = reference(layer, [x, identity, y, gain, shift]);
    for (const [i, result] of results.entries()) {
      const values = new Float32Array(result);
      const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
      assert.ok(worst < 2e-3, `${["alone", "with a linear layer"][i]}, ${N} rows of ${K}: ${worst} apart`);
    }
  }
});

gpuTest("the choice is the first of the largest logits, and its log-probability that of a softmax", async (gpu) => {
  const normal = seededNormal(2);
  for (const [B, V] of [[1, 97], [3, 4096], [70, 5000], [2, 50257]]) {
    const logits = Float32Array.from({ length: B * V }, () => 3 * normal());
    for (let b = 0; b < B; b++) { // equal ones, far apart
      logits[b * V + V - 1 - b % 5] = logits[b * V + (b * 37) % (V - 10)] = 40 - b / 10;
    }
    const integers = [0, B, ...Array(STEP_HEADER - 2).fill(0)];
    const search = searchKernel(B, V, true), space = new Uint32Array(B * searchWords(V));
    const found = new Uint32Array(await run(gpu, search, integers, [logits, space], 1));
    const chosen = await run(gpu, chooseKernel(B, V), integers, [found, new Uint32Array(2 * B)], 1);
    for (let b = 0; b < B; b++) {
      const row = logits.subarray(b * V, (b + 1) * V), largest = Math.max(...row);
      assert.equal(new Int32Array(chosen)[b], row.indexOf(largest), `row ${b} of ${B} × ${V}`);
      const logprob = -Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
      assert.ok(Math.abs(new Float32Array(chosen)[B + b] - logprob) < 1e-4, `row ${b} of ${B} × ${V}`);
    }
  }
});

gpuTest("a table that is bound in parts gives each token its row, whichever part that is in", async (gpu) => {
  const width = 12, table = Float32Array.from({ length: 256 * width }, (_, i) => i);
  const positions = Float32Array.from({ length: 8 * width }, (_, i) => i / 1000);
  const tokens = [0, 127, 128, 255, 200], places = [0, 1, 7, 3, 0];
  const starts = [STEP_HEADER, STEP_HEADER + 5];
  const integers = [5, 0, ...starts, ...Array(STEP_HEADER - 4).fill(0), ...tokens, ...places];
  let y = new Float32Array(5 * width);
  for (const first of [0, 128]) {
    const kernel = embedKernel({ rows: 5, width, ids: [0, 1], part: { first, count: 128 } });
    const part = table.subarray(first * width, (first + 128) * width);
    y = new Float32Array(await run(gpu, kernel, integers, [part, positions, y], 2));
  }
  for (const [n, token] of tokens.entries()) {
    for (let d = 0; d < width; d++) {
      assert.equal(y[n * width + d], Math.fround(table[token * width + d] + positions[places[n] * width + d]));
    }
  }
});

gpuTest("a captured decode step is one submission, makes no bind groups and reads back four bytes a row", async () => {
  const backend = await useBackend("webgpu");
  const folder = await writeTinyModel({ seed: 1, config: { n_layer: 12 } });
  using model = await loadGPT2(folder, { backend });
  for (const batchSize of [1, 3, 20]) {
    const inputs = padBatch(Array(batchSize).fill([1, 2, 3]), { padTokenId: 0 });
    using generation = await prefill(model, inputs, { maxTokens: 12, ignoreEos: true });
    await decodeStep(model, generation);
    const work = await countGpuWork(() => decodeStep(model, generation));
    const perBlock = batchSize > 8 ? 7 : 5; // layer norm of many rows is a kernel of its own
    assert.deepEqual(work, { dispatches: 12 * perBlock + 5, submissions: 1, bindGroups: 0, bytesRead: 4 * batchSize });
  }
});

gpuTest("a chain of steps gives what they give one by one, from one bucket or several, and reads once", async () => {
  const backend = await useBackend("webgpu");
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  const runner = Runner.of(model), first = [3, 1, 4, 1, 5], steps = 6;
  for (const phases of [["decode"], ["decode", "prefill"]] as const) { // rows of two phases lie in two buckets
    const start = () => {
      const cache = new KvCache(model), counts = phases.length === 1 ? [5] : [2, 3];
      const rows = phases.flatMap((phase, i) => cache.admit({ slots: Array(counts[i]).fill(16), phase }));
      return { cache, feeds: rows.map((row, i) => ({ row, tokens: [first[i]] })) };
    };
    const { cache, feeds } = start(), expected: number[][] = [];
    using _ = cache;
    for (let tokens = first, i = 0; i < steps; i++) {
      const next = await runner.step(cache, feeds.map(({ row }, r) => ({ row, tokens: [tokens[r]] })));
      expected.push(tokens = next.map(({ id }) => id));
    }
    const again = start(), chained: number[][] = [];
    using _again = again.cache;
    const work = await countGpuWork(async () => {
      for (const next of await runner.greedySteps(again.cache, again.feeds, steps)) {
        chained.push(next.map(({ id }) => id));
      }
    });
    assert.deepEqual(chained, expected);
    assert.equal(new Set(again.feeds.map(({ row }) => row.bucket)).size, phases.length);
    assert.deepEqual([work.submissions, work.bytesRead], [steps + 1, 4 * steps * first.length]); // one sends the empty cache
  }
});

gpuTest("the cache of the next batch gets the memory of the last one", async () => {
  const backend = await useBackend("webgpu");
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  const inputs = padBatch([[1, 2, 3], [4]], { padTokenId: 0 });
  const generate = () => generateBatch(model, inputs, { maxTokens: 8, ignoreEos: true });
  const bytes = () =>
    (tf.backend() as unknown as { memory(): { numBytesAllocatedInGPU: number } }).memory()
      .numBytesAllocatedInGPU;
  await generate();
  const before = bytes();
  for (let i = 0; i < 5; i++) await generate();
  assert.equal(bytes(), before);
});

gpuTest("lanes take turns on the GPU", async () => {
  const backend = await useBackend("webgpu");
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  const prompts = [[1, 2, 3], [4], [5, 6]];
  const answersIn = async (lanes: number) => {
    using cache = new KvCache(model, { lanes, threads: 1 });
    const rows = cache.admit({ slots: [23, 23, 23] });
    const answers = [];
    for (let tokens = prompts, i = 0; i < 20; i++) {
      const next = await Runner.of(model).step(cache, rows.map((row, r) => ({ row, tokens: tokens[r] })));
      const ids = next.map(({ id }) => id);
      answers.push(ids);
      tokens = ids.map((id) => [id]);
    }
    return answers;
  };
  assert.deepEqual(await answersIn(3), await answersIn(1));
});

gpuTest("a step that no kernel fits is refused, and says why", async () => {
  const backend = await useBackend("webgpu"), { ops } = backend;
  const x = tf.ones<tf.Rank.R2>([2, 8]), once = { repeated: false };
  assert.throws(
    () => backend.capture!([x], ([x]) => [ops.add(x as tf.Tensor2D, x as tf.Tensor2D)], once),
    /no kernel for add/,
  );
  assert.throws(() => backend.capture!([x], () => [x], once), /mixes its inputs with the values of other tensors/);
  x.dispose();
});

gpuTest("what does not fit on the GPU is refused with the number of bytes, and the GPU goes on", async () => {
  const backend = await useBackend("webgpu"), before = tf.memory().numTensors;
  const size = 2 ** 44;
  await assert.rejects(backend.createTensor([size], () => {}), /Cannot put a tensor \[17592186044416\] of \d+ bytes/);
  const tensor = await backend.createTensor([4], (values) => void values.fill(2));
  assert.deepEqual(Array.from(await tensor.data()), [2, 2, 2, 2]);
  await assert.rejects(
    backend.createTensor([4], () => {
      throw new Error("unreadable");
    }),
    /unreadable/,
  );
  tensor.dispose();
  assert.equal(tf.memory().numTensors, before);
});

gpuTest("a batch whose cache there is no memory for is refused, and the next one runs", async () => {
  const backend = await useBackend("webgpu");
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  const options = { maxTokens: 4, ignoreEos: true }, inputs = padBatch([[1, 2, 3]], { padTokenId: 0 });
  const expected = await generateBatch(model, inputs, options), before = tf.memory().numTensors;
  const { popErrorScope } = GPUDevice.prototype;
  // A GPU that is full answers so; a program in place of one never is.
  GPUDevice.prototype.popErrorScope = async function () {
    await popErrorScope.call(this);
    return new GPUOutOfMemoryError("full");
  };
  try {
    const wide = padBatch(Array(7).fill([1, 2, 3]), { padTokenId: 0 });
    const message = /no memory left for a tensor \[7,3,16,8\] of 10752 bytes/;
    await assert.rejects(generateBatch(model, wide, options), message);
    await assert.rejects(backend.createTensor([4], () => {}), /no memory left for a tensor \[4\] of 16 bytes/);
  } finally {
    GPUDevice.prototype.popErrorScope = popErrorScope;
  }
  assert.equal(tf.memory().numTensors, before);
  assert.deepEqual(await generateBatch(model, inputs, options), expected);
});

const most = gpu?.device.limits.maxStorageBufferBindingSize ?? Infinity;
Deno.test({
  name: `a batch whose cache cannot be bound in one piece is refused with the number of bytes (${most} here)`,
  ignore: most > 2 ** 27, // it would take too much memory to get there
  async fn() {
    const backend = await useBackend("webgpu"), before = tf.memory().numTensors;
    {
      const config = { n_layer: 1, n_embd: 768, n_head: 12 };
      using model = await loadGPT2(await writeTinyModel({ seed: 1, config }), { backend });
      const inputs = padBatch(Array(2800).fill([1]), { padTokenId: 0 }); // 16 slots of 768 numbers each
      await assert.rejects(
        generateBatch(model, inputs, { maxTokens: 2 }),
        /Cannot run a step of 2800 tokens on the GPU .*: it needs 137625600 bytes in one piece/,
      );
    }
    assert.equal(tf.memory().numTensors, before);
  },
});

gpuTest(
  "a GPU that is lost ends what runs on it with a clear error; other backends go on, and so does a new start",
  async () => {
    const inputs = padBatch([[1, 2, 3], [4]], { padTokenId: 0 }), options = { maxTokens: 8, ignoreEos: true };
    const folder = await writeTinyModel({ seed: 1 });
    const answer = async (backend: Backend) => {
      using model = await loadGPT2(folder, { backend });
      return (await generateBatch(model, inputs, options)).map(({ tokens }) => tokens);
    };
    const running = await useBackend("webgpu");
    const expected = await answer(running);
    using model = await loadGPT2(folder, { backend: running });
    using generation = await prefill(model, inputs, options);
    await decodeStep(model, generation);
    (tf.backend() as unknown as { device: GPUDevice }).device.destroy(); // as a driver that resets the GPU
    await assert.rejects(decodeStep(model, generation), /The GPU \(.*\) was lost: .*use another backend/);
    await assert.rejects(generateBatch(model, inputs, options), /The GPU \(.*\) was lost/);
    assert.deepEqual(await answer(await useBackend("cpu")), expected);
    const again = await useBackend("webgpu");
    assert.notEqual(again, running);
    assert.deepEqual(await answer(again), expected);
  },
);
