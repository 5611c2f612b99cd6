import assert from "node:assert/strict";
import { join } from "node:path";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { readConfig } from "../lib/gpt2/config_file.ts";
import { type Range, ranges } from "../lib/util/ranges.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { openSafetensors, SafetensorsError, type TensorData, writeSafetensors } from "../lib/safetensors/reader.ts";
import { checkpointWeights, outputAxis } from "../lib/gpt2/weights.ts";
import { quantizeInt8 } from "../lib/backend/int8.ts";
import { joinColumns } from "../lib/backend/join_columns.ts";
import type { Linear, Ops } from "../lib/backend/ops.ts";
import { quantizeModel } from "../lib/gpt2/quantize.ts";
import { assertClose, logitsOf } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const DTYPES = ["int8", "bfloat16"] as const;
const ROWS = [[1, 2, 3, 40], [5], [96, 7, 8]];

async function quantized(folder: string, dtype: typeof DTYPES[number]): Promise<string> {
  const output = join(await Deno.makeTempDir(), dtype);
  await quantizeModel(folder, output, dtype);
  return output;
}

/** All tensors of a file as they could be written again. */
async function tensorsOf(folder: string): Promise<Map<string, TensorData>> {
  using file = await openSafetensors(join(folder, "model.safetensors"));
  const tensors = new Map<string, TensorData>();
  for (const [name, { dtype, shape }] of file.tensors) {
    if (dtype === "I8") tensors.set(name, { dtype, shape, data: await file.readInt8(name) });
    else tensors.set(name, { dtype: dtype as "F32", shape, data: await file.readFloat32(name) });
  }
  return tensors;
}

Deno.test("int8 weights are rounded as one would by hand, zeros too, and again to the same", () => {
  const { values, scale } = quantizeInt8(new Float32Array([127, 0, -2, 0.5, 0, 1, 1.5, 0, 0]), [3, 3], 1);
  assert.deepEqual([...values], [127, 0, -127, 0, 0, 64, 2, 0, 0]); // 0.5 and 63.5 and 1.5 go to the even side
  assert.equal(scale[0], 1);
  assert.ok(scale[1] > 0 && Math.abs(scale[2] - 2 / 127) < 1e-8);
  const wide = Float32Array.from({ length: 4 * 999 }, (_, i) => Math.sin(i * i) / (1 + i % 999));
  for (const [axis, shape] of [[1, [4, 999]], [0, [999, 4]]] as const) {
    const once = quantizeInt8(wide, shape, axis);
    const back = wide.map((_, i) => once.values[i] * once.scale[axis === 0 ? Math.floor(i / 4) : i % 999]);
    assert.deepEqual(quantizeInt8(back, shape, axis).values, once.values);
  }
});

Deno.test("a low-precision file holds each weight to half a step, in about a quarter or half of the bytes", async () => {
  for (const source of [await writeTinyModel({ seed: 1, prefix: true }), "models/small"]) {
    const config = await readConfig(source), original = await checkpointWeights(source, config);
    const elements = [...(await tensorsOf(source)).values()].reduce((sum, { data }) => sum + data.length, 0);
    for (const dtype of DTYPES) {
      const folder = await quantized(source, dtype), bytes = (await Deno.stat(join(folder, "model.safetensors"))).size;
      if (source === "models/small") {
        assert.ok(Math.abs(bytes / (4 * elements) - (dtype === "int8" ? 0.25 : 0.5)) < 0.02, `${dtype}: ${bytes}`);
        assert.deepEqual(
          await Deno.readFile(join(folder, "tokenizer.json")),
          await Deno.readFile(`${source}/tokenizer.json`),
        );
      }
      using lowPrecision = await checkpointWeights(folder, await readConfig(folder));
      using file = await openSafetensors(join(folder, "model.safetensors"));
      assert.match(file.metadata.get("quantization")!, new RegExp(`^${dtype}`));
      for (const [name, { shape }] of file.tensors) {
        if (name.endsWith(".scale")) continue;
        const [a, b] = [0, 0].map(() => new Float32Array(shape.reduce((x, y) => x * y, 1)));
        await original.fill(name, a);
        await lowPrecision.fill(name, b);
        const axis = outputAxis(name);
        if (axis === undefined) assert.deepEqual(a, b, name);
        else if (dtype === "bfloat16") assert.ok(a.every((x, i) => Math.abs(x - b[i]) <= Math.abs(x) / 256), name);
        else {
          const { values, scale } = quantizeInt8(a, [shape[0], shape[1]], axis);
          const channel = (i: number) => axis === 0 ? Math.floor(i / shape[1]) : i % shape[1];
          assert.ok(a.every((x, i) => Math.abs(x - b[i]) <= 0.5001 * scale[channel(i)]), name);
          assert.ok(b.every((x, i) => x === Math.fround(values[i] * scale[channel(i)])), name);
        }
      }
    }
    original[Symbol.dispose]();
  }
});

Deno.test("a low-precision file loads as low-precision weights that are those of the wide model loaded so", async () => {
  const backend = await useBackend("tensorflow");
  // Heads of 4 numbers: the attention's scale, 1/2, is exact, as that of GPT-2's heads of 64 is.
  const wide = await writeTinyModel({ seed: 3, config: { n_head: 6 } });
  for (const dtype of DTYPES) {
    if (!backend.dtypes.includes(dtype)) continue;
    const lowPrecision = await quantized(wide, dtype);
    // The look-up reads the low-precision embedding, so the wide model gets that one; the layers and the head are its own.
    const config = await readConfig(lowPrecision), tensors = await tensorsOf(wide), wte = tensors.get("wte.weight")!;
    using weights = await checkpointWeights(lowPrecision, config);
    await weights.fill("wte.weight", wte.data as Float32Array);
    await writeSafetensors(join(wide, "model.safetensors"), tensors);
    using a = await loadGPT2(lowPrecision, { backend: { ...backend, groups: 1 }, dtype });
    using b = await loadGPT2(wide, { backend: { ...backend, groups: 1 }, dtype });
    assertClose((await logitsOf(a, ROWS)).flat(), (await logitsOf(b, ROWS)).flat(), 1e-5, dtype);
  }
});

/** A linear layer's weight, read off from what it makes of one input at a time: [K][M]. */
function weightOf(linear: Linear, inputs: number): number[][] {
  return tf.tidy(() => {
    const each = tf.oneHot(tf.range(0, inputs, 1, "int32"), inputs, 1, 0, "float32") as tf.Tensor2D;
    const bias = linear.apply(tf.zeros([1, inputs]));
    return tf.sub<tf.Tensor2D>(linear.apply(each), bias).arraySync();
  });
}

Deno.test({
  name: "an int8 file's weights are used exactly as they are, in however many groups",
  ignore: !(await useBackend("tensorflow")).dtypes.includes("int8"),
  async fn() {
    const backend = await useBackend("tensorflow"), D = 24, H = 6, M = 80, V = 97, size = D / H;
    // Heads of 4 numbers: the attention's scale, 1/2, is exact. The groups divide heads and hidden units unevenly.
    const folder = await quantized(await writeTinyModel({ seed: 7, config: { n_head: H, n_inner: M } }), "int8");
    const tensors = await tensorsOf(folder);
    for (const { dtype, data } of tensors.values()) if (dtype === "I8") data[5] = -128; // as others may write them
    await writeSafetensors(join(folder, "model.safetensors"), tensors);
    for (const groups of [1, 2, 3, 4]) {
      const made = new Map<string, Linear[]>();
      const ops: Ops = {
        ...backend.ops,
        linear: () => assert.fail("a layer is rounded again"),
        head: () => assert.fail("the head is rounded again"),
        int8Linear(weight, bias, options) {
          const linear = backend.ops.int8Linear!(weight, bias, { ...options, activation: "none" });
          made.set(options.name, [...made.get(options.name) ?? [], linear]);
          return linear;
        },
        int8Head(wte, options) {
          const head = backend.ops.int8Head!(wte, options);
          made.set(options.name, [{ ...head, apply: (x) => joinColumns(head.apply(x)) }]);
          return head;
        },
      };
      using _model = await loadGPT2(folder, { backend: { ...backend, groups, ops }, dtype: "int8" });
      const heads = ranges(H, groups).map(([start, end]): Range => [size * start, size * end]);
      const hidden = ranges(M, groups, 16), whole: Range[] = [[0, D]];
      /** Inputs and outputs of each layer's parts. */
      const parts: Record<string, { rows: Range[]; columns: Range[][]; query?: number }> = {
        "attn.c_attn": {
          rows: whole,
          columns: heads.map(([start, end]) => [0, D, 2 * D].map((part): Range => [part + start, part + end])),
          query: D,
        },
        "attn.c_proj": { rows: heads, columns: [whole] },
        "mlp.c_fc": { rows: whole, columns: hidden.map((range) => [range]) },
        "mlp.c_proj": { rows: hidden, columns: [whole] },
        "lm_head": { rows: whole, columns: [[[0, V]]] },
      };
      for (const [name, linears] of made) {
        const { rows, columns, query = 0 } = parts[name.replace(/^h\.\d\./, "")],
          stored = name === "lm_head" ? "wte" : name;
        const { data, shape } = tensors.get(`${stored}.weight`)!, scale = tensors.get(`${stored}.weight.scale`)!.data;
        const expected = (k: number, m: number) => name === "lm_head" ? data[m * D + k] : data[k * shape[1] + m];
        assert.equal(linears.length, Math.max(rows.length, columns.length), name);
        for (const [g, linear] of linears.entries()) {
          const [first, end] = rows[g] ?? rows[0],
            outputs = (columns[g] ?? columns[0]).flatMap(([a, b]) => Array.from({ length: b - a }, (_, i) => a + i));
          for (const [k, row] of weightOf(linear, end - first).entries()) {
            assert.equal(row.length, outputs.length, name);
            for (const [i, m] of outputs.entries()) {
              const steps = row[i] / (m < query ? scale[m] / 2 : scale[m]);
              const what = `${name}, part ${g + 1} of ${linears.length}, input ${first + k}, output ${m}`;
              assert.ok(
                Math.abs(steps - expected(first + k, m)) < 1e-3,
                `${what}: ${steps}, not ${expected(first + k, m)}`,
              );
            }
          }
        }
      }
      assert.deepEqual([...made.keys()].length, 4 * 2 + 1, "every linear layer was looked at");
    }
  },
});

Deno.test("backends with float32 only run low-precision files", async () => {
  const wide = await writeTinyModel({ seed: 1 }), backend = await useBackend("cpu");
  using exact = await loadGPT2(wide, { backend });
  const expected = (await logitsOf(exact, ROWS)).flat(), spread = Math.max(...expected) - Math.min(...expected);
  for (const dtype of DTYPES) {
    using model = await loadGPT2(await quantized(wide, dtype), { backend });
    assertClose((await logitsOf(model, ROWS)).flat(), expected, 0.05 * spread, dtype);
  }
});

Deno.test("int8 files without good scales are refused, and the tensor named", async () => {
  const folder = await quantized(await writeTinyModel({ seed: 1 }), "int8"), config = await readConfig(folder);
  const good = await tensorsOf(folder), name = "h.0.attn.c_attn.weight.scale", { data, shape } = good.get(name)!;
  const scale = (change: (data: Float32Array) => void): TensorData => {
    const copy = Float32Array.from(data);
    change(copy);
    return { dtype: "F32", shape, data: copy };
  };
  const bad: [RegExp, TensorData | undefined][] = [
    [/no tensor h\.0\.attn\.c_attn\.weight\.scale/, undefined],
    [/c_attn\.weight\.scale is F32 \[71\]/, { dtype: "F32", shape: [71], data: new Float32Array(71).fill(1) }],
    [/c_attn\.weight\.scale is F32 \[1,72\]/, { dtype: "F32", shape: [1, 72], data: new Float32Array(72).fill(1) }],
    [/c_attn\.weight\.scale is BF16/, { dtype: "BF16", shape: [72], data: new Float32Array(72).fill(1) }],
    ...[0, -1, NaN, Infinity, 3e38].map((value): [RegExp, TensorData] => [
      /c_attn\.weight\.scale holds .*at index 5/,
      scale((data) => data[5] = value),
    ]),
  ];
  const refused = async (tensors: Map<string, TensorData>, message: RegExp) => {
    await writeSafetensors(join(folder, "model.safetensors"), tensors);
    await assert.rejects(checkpointWeights(folder, config), (error: Error) => {
      assert.ok(error instanceof SafetensorsError);
      assert.match(error.message, message);
      return true;
    });
  };
  for (const [message, tensor] of bad) {
    const tensors = new Map(good);
    tensor ? tensors.set(name, tensor) : tensors.delete(name);
    await refused(tensors, message);
  }
  const wpe = good.get("wpe.weight")!;
  await refused(
    new Map(good).set("wpe.weight", { dtype: "I8", shape: wpe.shape, data: new Int8Array(wpe.data.length) }),
    /wpe\.weight is I8/,
  );
  await refused(new Map(good).set("ln_f.weight.scale", scale(() => {})), /no tensor ln_f\.weight\.scale/);
});

Deno.test("a folder that is there is not written over, and failures leave nothing behind", async () => {
  const source = await writeTinyModel({ seed: 1 }), parent = await Deno.makeTempDir();
  await Deno.mkdir(join(parent, "there"));
  await assert.rejects(quantizeModel(source, join(parent, "there"), "int8"), /there already/);
  await Deno.mkdir(join(source, "tokenizer.json")); // cannot be copied as a file
  await assert.rejects(quantizeModel(source, join(parent, "new"), "int8"));
  assert.deepEqual([...Deno.readDirSync(parent)].map(({ name }) => name), ["there"]);
});
