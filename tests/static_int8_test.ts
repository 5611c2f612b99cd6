import assert from "node:assert/strict";
import { join } from "node:path";
import * as tf from "@tensorflow/tfjs";
import type { ActivationRange } from "../lib/backend/int8.ts";
import { plainOps } from "../lib/backend/plain.ts";
import { useBackend } from "../lib/backend/select.ts";
import { onBackend } from "../lib/backend/current.ts";
import { measureActivationRanges } from "../lib/bench/activation_ranges.ts";
import { rangesOfFolder } from "../lib/bench/model_ranges.ts";
import { predict } from "../lib/bench/perplexity.ts";
import { generateBatch } from "../lib/engine/generate.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { quantizeModel } from "../lib/gpt2/quantize.ts";
import { checkpointWeights } from "../lib/gpt2/weights.ts";
import { readConfig } from "../lib/gpt2/config_file.ts";
import * as pretrained from "../lib/pretrained.ts";
import { openSafetensors, SafetensorsError, type TensorData, writeSafetensors } from "../lib/safetensors/reader.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { seededRandom } from "../lib/util/random.ts";
import { workingBackends } from "./_support/backends.ts";
import { distance, logitsOf } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const { working } = await workingBackends(), int8Backends = working.filter(({ dtypes }) => dtypes.includes("int8"));
const backend = await useBackend("tensorflow"), full = Deno.env.has("OMNIBUS_FULL");
const ignore = !backend.ops.takesInputRanges;

/** Windows of 128 tokens from each of the held-out texts. */
async function windows(first: number, count: number): Promise<number[][]> {
  const tokenizer = await AutoTokenizer.fromPretrained("models/small"), rows: number[][] = [];
  for (const name of ["austen", "kjv", "moby", "sotu"]) {
    const tokens = tokenizer.encode(await Deno.readTextFile(`models/small/heldout/${name}.txt`));
    for (let i = first; i < first + count; i++) rows.push(tokens.slice(i * 128, (i + 1) * 128));
  }
  return rows;
}

/** The ranges of the shipped model's activations, measured on these rows, or on its own text. */
const measuredOn = (rows?: number[][]) =>
  measureActivationRanges((options) => loadGPT2("models/small", options), backend, rows);

/** On windows that no test looks at. */
let ofSmall: ReturnType<typeof measuredOn> | undefined;
const measured = () => ofSmall ??= windows(30, 2).then(measuredOn);

/** Has all rows scaled by their common largest magnitude, as it comes, before they go into a layer: what static int8 must not be like. */
function scaledTogether(): typeof backend {
  const { ops } = backend,
    rounded = (x: tf.Tensor2D) =>
      tf.tidy(() => {
        const step = tf.div(tf.max(tf.abs(x)), 127);
        return tf.mul<tf.Tensor2D>(tf.round(tf.div(x, step)), step);
      });
  const linear: typeof ops.linear = (weight, bias, options) => {
    const layer = ops.linear(weight, bias, options);
    return { apply: (x) => layer.apply(rounded(x)), dispose: () => layer.dispose() };
  };
  return { ...backend, ops: { ...ops, linear, chain: plainOps.chain } };
}

/** With a cache folder of its own, in which libtensorflow is not looked for: it runs already. */
async function withCache<T>(work: () => Promise<T>): Promise<T> {
  const before = Deno.env.get("OMNIBUS_CACHE");
  Deno.env.set("OMNIBUS_CACHE", await Deno.makeTempDir());
  try {
    return await work();
  } finally {
    if (before === undefined) Deno.env.delete("OMNIBUS_CACHE");
    else Deno.env.set("OMNIBUS_CACHE", before);
  }
}

Deno.test({
  name:
    "a static int8 layer rounds its inputs to 255ths of its range and cuts off the rest; a chain does that in between too",
  ignore,
  async fn() {
    const { ops } = backend, options = { dtype: "int8" } as const;
    const eye = () => tf.eye(4) as tf.Tensor2D, zeros = () => tf.zeros([4]) as tf.Tensor1D;
    const run = async (inputRanges: (ActivationRange | undefined)[]) => {
      const [a, b] = onBackend(
        backend,
        () =>
          inputRanges.map((inputRange, i) => ops.linear(eye(), zeros(), { ...options, name: `eye.${i}`, inputRange })),
      );
      const x = onBackend(backend, () => tf.tensor2d([[1.27, 0.014, -0.016, 9], [-9, 0.5, 0.006, 0]]));
      const captured = backend.capture!([x], ([x]) => [a.apply(x as tf.Tensor2D), ops.chain(a, b, x as tf.Tensor2D)], {
        repeated: true,
      });
      const results = await captured.run([x], { lanes: 1, threads: 1 });
      const numbers = results.map((result) => (result.arraySync() as number[][]).map((row) => row.map(Math.fround)));
      tf.dispose([...results, x]);
      for (const part of [captured, a, b]) part.dispose();
      return numbers;
    };
    const rounded = (rows: number[][]) => rows.map((row) => row.map((value) => Number(value.toFixed(4)) + 0)); // no -0
    const [layer, chain] = await run([[-0.25, 2.3], [-0.1, 1.175]]); // steps of 0.01 and 0.005
    assert.deepEqual(rounded(layer), [[1.27, 0.01, -0.02, 2.3], [-0.25, 0.5, 0.01, 0]]);
    assert.deepEqual(rounded(chain), [[1.175, 0.01, -0.02, 1.175], [-0.1, 0.5, 0.01, 0]]);
    const [between] = await run([[-0.2549, 2.2951], undefined]); // moved by half a step, so that zero stays zero
    assert.deepEqual(rounded(between), rounded(layer));
    const [byRow] = await run([undefined, undefined]); // control: nothing is cut off
    assert.ok(Math.abs(byRow[0][3] - 9) < 1e-4 && Math.abs(byRow[1][0] + 9) < 1e-4, `${byRow}`);
  },
});

Deno.test({
  name: "ranges are measured once for the weights, kept for them alone, and go into int8 files",
  ignore,
  fn: () =>
    withCache(async () => {
      const lines: string[] = [], options = { backend, log: (line: string) => void lines.push(line) };
      const folder = await writeTinyModel({ seed: 11 });
      const first = await rangesOfFolder(folder, options);
      assert.match(
        lines[0],
        /^Measured .* of 9 layers have constant ranges, which cut something off in .*% .* perplexity by .*%\.$/,
      );
      assert.deepEqual([...await rangesOfFolder(folder, options)], [...first]);
      assert.equal(lines.length, 1, "the second time they were there");
      const other = await rangesOfFolder(await writeTinyModel({ seed: 12 }), options);
      assert.equal(lines.length, 2, "other weights have ranges of their own");
      assert.notDeepEqual([...other.values()], [...first.values()]);

      const output = join(await Deno.makeTempDir(), "int8");
      await quantizeModel(folder, output, "int8", { activationRanges: () => Promise.resolve(first) });
      using weights = await checkpointWeights(output, await readConfig(output));
      assert.deepEqual([...weights.activationRanges.keys()].sort(), [...first.keys()].sort());
      for (const [layer, range] of first) assert.deepEqual(weights.activationRanges.get(layer), range.map(Math.fround));
      const texts = [[1, 2, 3, 40], [5], [96, 7, 8]], load = { backend, dtype: "int8", activations: "static" } as const;
      using fromFile = await pretrained.loadGPT2(output, { ...load, log: options.log });
      using atLoad = await pretrained.loadGPT2(folder, { ...load, log: options.log });
      using dynamic = await pretrained.loadGPT2(folder, { ...load, activations: "dynamic" });
      assert.equal(lines.length, 2, "nothing was measured again");
      const [a, b, c] = [
        await logitsOf(fromFile, texts),
        await logitsOf(atLoad, texts),
        await logitsOf(dynamic, texts),
      ];
      const apart = (x: number[][], y: number[][]) => Math.max(...x.map((row, i) => distance(row, y[i])));
      assert.ok(apart(a, b) < 0.3 * Math.max(1e-3, apart(a, c)) || apart(a, b) < 0.2, `${apart(a, b)}, ${apart(a, c)}`);
      assert.ok(apart(b, c) > 1e-4, "control: dynamic ones round otherwise");
    }),
});

Deno.test({
  name: "layers whose largest rows are far from usual ones get no constant range where that costs perplexity",
  ignore,
  async fn() {
    const folder = await writeTinyModel({ seed: 3 });
    const load: Parameters<typeof measureActivationRanges>[0] = (options) => loadGPT2(folder, options);
    const random = seededRandom(1), token = () => Math.floor(random() * 97);
    const rows = Array.from({ length: 8 }, () => Array.from({ length: 48 }, token));
    const { ranges, layers, clippedShare } = await measureActivationRanges(load, backend, rows);
    assert.equal(layers, 9);
    assert.ok(clippedShare < 0.05, `${clippedShare}`);
    // An outlier: one token's embedding is a thousand times as large, and so is what goes into the first products of its MLP.
    const wild = await writeTinyModel({ seed: 3 });
    const path = join(wild, "model.safetensors"), tensors = new Map<string, TensorData>();
    {
      using file = await openSafetensors(path);
      for (const [name, { shape }] of file.tensors) {
        tensors.set(name, { dtype: "F32", shape, data: await file.readFloat32(name) });
      }
    }
    const wte = tensors.get("wte.weight")!.data as Float32Array, fc = tensors.get("h.0.mlp.c_fc.bias")!;
    (fc.data as Float32Array)[0] = 0;
    for (let i = 0; i < 24; i++) wte[5 * 24 + i] *= 30;
    for (const name of ["h.0.mlp.c_fc.weight"]) {
      const { data, shape } = tensors.get(name)!;
      for (let k = 0; k < 24; k++) (data as Float32Array)[k * shape[1]] = 20 * Math.sign(wte[5 * 24 + k]);
    }
    await writeSafetensors(path, tensors);
    const loadWild: typeof load = (options) => loadGPT2(wild, options);
    for (const row of rows) row[7] = 5;
    const found = await measureActivationRanges(loadWild, backend, rows);
    assert.ok(found.ranges.size < ranges.size, `${found.ranges.size} of ${ranges.size}`);
    assert.ok(!found.ranges.has("h.0.mlp.c_proj"), [...found.ranges.keys()].join(" "));
    assert.ok(found.perplexityRatio <= 1.005, `${found.perplexityRatio}`);
  },
});

for (const backend of int8Backends) {
  Deno.test({
    name:
      `${backend.name}: static int8 costs less than 0.5% of perplexity on held-out text, from a file and at load, in one batch and alone`,
    ignore,
    async fn() {
      const { ranges, clippedShare } = await measured(), rows = await windows(0, 8), few = rows.slice(0, 6);
      using wide = await loadGPT2("models/small", { backend });
      const exact = await predict(wide, rows), file = join(await Deno.makeTempDir(), "int8");
      await quantizeModel("models/small", file, "int8", { activationRanges: () => Promise.resolve(ranges) });
      for (const folder of ["models/small", file]) {
        const known = folder === file ? {} : { activationRanges: ranges };
        using model = await loadGPT2(folder, { backend, dtype: "int8", ...known });
        const together = await predict(model, rows), fewTogether = await predict(model, few);
        let surprise = 0;
        for (const [i, row] of few.entries()) {
          const alone = await predict(model, [row]);
          surprise += Math.log(alone.perplexity) / few.length;
          assert.deepEqual(alone.choices[0], together.choices[i], `row ${i}`);
        }
        assert.ok(Math.abs(Math.exp(surprise) / fewTogether.perplexity - 1) < 1e-5, "alone as together");
        const loss = together.perplexity / exact.perplexity - 1;
        console.log(
          `static int8, ${ranges.size} of 17 layers, ${
            (100 * clippedShare).toFixed(1)
          }% of the vectors cut, ${folder}: ` +
            `perplexity ${(100 * loss).toFixed(2)}%`,
        );
        assert.ok(Math.abs(loss) <= 0.005, `${loss}`);
        assert.ok(Math.abs(together.perplexity - exact.perplexity) > 1e-4, "it was really rounded");
      }
    },
  });
}

Deno.test({
  name: "static int8 costs less than 0.5% of perplexity, whatever text its ranges are from",
  ignore,
  async fn() {
    const rows = await windows(0, 8), all = await windows(30, 8);
    using wide = await loadGPT2("models/small", { backend });
    const exact = (await predict(wide, rows)).perplexity;
    const texts: [string, number[][]?][] = [["its own"]];
    if (full) {
      for (const [i, name] of ["austen", "kjv", "moby", "sotu"].entries()) {
        texts.push([name, all.slice(8 * i, 8 * i + 8)]);
      }
    }
    for (const [name, text] of texts) {
      const { ranges } = await measuredOn(text);
      using model = await loadGPT2("models/small", { backend, dtype: "int8", activationRanges: ranges });
      const loss = (await predict(model, rows)).perplexity / exact - 1;
      console.log(`static int8, ranges of ${ranges.size} layers from ${name}: perplexity ${(100 * loss).toFixed(2)}%`);
      assert.ok(Math.abs(loss) <= 0.005, `${name}: ${loss}`);
    }
  },
});

for (const backend of int8Backends) {
  Deno.test({
    name:
      `${backend.name}: static int8 rows are the same among companions of any length as alone: logits, and tokens up to ties`,
    ignore,
    async fn() {
      const { ranges } = await measured();
      using model = await loadGPT2("models/small", { backend, dtype: "int8", activationRanges: ranges });
      const random = seededRandom(5), upTo = (n: number) => 1 + Math.floor(random() * n), count = full ? 500 : 24;
      const text = () => Array.from({ length: upTo(200) }, () => upTo(model.config.vocab_size) - 1);
      const answer = async (rows: number[][], row: number) => {
        const answers = await generateBatch(model, padBatch(rows, { padTokenId: 0 }), {
          maxTokens: 8,
          ignoreEos: true,
        });
        return answers[row].tokens;
      };
      using control = await loadGPT2("models/small", { backend: scaledTogether() });
      let worst = 0, differing = 0, worstOfControl = 0;
      for (let i = 0; i < count; i++) {
        const row = text(), rows = [text(), row, text()];
        const [[alone], [, together]] = [await logitsOf(model, [row]), await logitsOf(model, rows)];
        worst = Math.max(worst, distance(alone, together));
        if (`${await answer([row], 0)}` !== `${await answer(rows, 1)}`) differing++;
        if (i >= 3) continue;
        const [[single], [, among]] = [await logitsOf(control, [row]), await logitsOf(control, rows)];
        worstOfControl = Math.max(worstOfControl, distance(single, among));
      }
      console.log(`static int8, ${count} rows: logits at most ${worst} apart, ${differing} rows with another token`);
      assert.ok(worst < 1e-3, `${worst}`);
      assert.ok(worstOfControl > 1e-2, `control: with a common scale, companions change logits: ${worstOfControl}`);
      assert.ok(differing <= Math.ceil(0.005 * count) - 1, `${differing} of ${count}`);
    },
  });
}

Deno.test({
  name: "a model with constant ranges, and what measures them, free everything",
  ignore,
  async fn() {
    const folder = await writeTinyModel({ seed: 5 }), before = tf.memory().numTensors;
    const { ranges: own } = await measureActivationRanges((options) => loadGPT2(folder, options), backend);
    const ranges = new Map(own).set("h.0.mlp.c_fc", [-4, 4]).set("h.0.mlp.c_proj", [-0.17, 4]);
    {
      using model = await loadGPT2(folder, { backend, dtype: "int8", activationRanges: ranges });
      await generateBatch(model, padBatch([[1, 2]], { padTokenId: 0 }), { maxTokens: 3, ignoreEos: true });
    }
    assert.equal(tf.memory().numTensors, before);
  },
});

Deno.test("files with ranges that cannot be are refused, and the tensor named", async () => {
  const source = await writeTinyModel({ seed: 1 }), folder = join(await Deno.makeTempDir(), "int8");
  const ranges = new Map<string, ActivationRange>([["h.0.mlp.c_fc", [-3, 3]], ["lm_head", [0, 4]]]);
  await quantizeModel(source, folder, "int8", { activationRanges: () => Promise.resolve(ranges) });
  const path = join(folder, "model.safetensors"), config = await readConfig(folder);
  const good = new Map<string, TensorData>();
  {
    using file = await openSafetensors(path);
    for (const [name, { dtype, shape }] of file.tensors) {
      const data = dtype === "I8" ? await file.readInt8(name) : await file.readFloat32(name);
      good.set(name, { dtype: dtype as "F32", shape, data } as TensorData);
    }
  }
  const name = "h.0.mlp.c_fc.input.range";
  const bad: [string, TensorData, RegExp][] = [
    ...[[0, 0], [1, 2], [-2, -1], [NaN, 1], [-1, Infinity], [-3e38, 3e38]].map((
      range,
    ): [string, TensorData, RegExp] => [
      name,
      { dtype: "F32", shape: [2], data: new Float32Array(range) },
      /c_fc\.input\.range holds .* and .*: a range must be finite and hold zero and more/,
    ]),
    [name, { dtype: "F32", shape: [1], data: new Float32Array([1]) }, /c_fc\.input\.range is F32 \[1\]/],
    ["h.0.ln_1.input.range", good.get(name)!, /no tensor h\.0\.ln_1\.input\.range/],
  ];
  for (const [name, tensor, message] of bad) {
    await writeSafetensors(path, new Map(good).set(name, tensor));
    await assert.rejects(checkpointWeights(folder, config), (error: Error) => {
      assert.ok(error instanceof SafetensorsError);
      assert.match(error.message, message);
      return true;
    });
  }
});
