/**
 * Model folders are the one input that strangers write. Whatever is in `config.json` and in the weights: a typed error
 * in bounded time and memory, or exactly the model that the files describe, read again here by other means.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { GPT2Config } from "../lib/gpt2/config.ts";
import { readConfig } from "../lib/gpt2/config_file.ts";
import { SafetensorsError } from "../lib/safetensors/reader.ts";
import { checkpointWeights, weightShapes } from "../lib/gpt2/weights.ts";
import { quantizeModel } from "../lib/gpt2/quantize.ts";
import { seededRandom } from "../lib/util/random.ts";
import { processorSeconds } from "./_support/processor.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

/** `deno task test --full` tries this many; without it, the first of them. */
const COUNT = Deno.env.get("OMNIBUS_FULL") ? 12_000 : 2_000;
const SEED = 7;

const TINY = { vocab_size: 7, n_positions: 5, n_embd: 4, n_layer: 1, n_head: 2, eos_token_id: 6 };

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** A folder's files, taken apart: what a case changes. */
interface Files {
  config: Record<string, unknown>;
  header: Record<string, Entry>;
  data: Uint8Array;
}

/** What a case makes of a folder: its two files, and whether a reader could only be wrong to accept them. */
interface Case {
  config: string | Uint8Array;
  weights: Uint8Array;
  mustRefuse?: boolean;
}

const encode = (value: unknown) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));

/** A safetensors file of a header, as an object or as its text, and data. */
function pack(header: unknown, data: Uint8Array, claimedLength?: bigint): Uint8Array<ArrayBuffer> {
  const text = encode(header), bytes = new Uint8Array(8 + text.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, claimedLength ?? BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(data, 8 + text.length);
  return bytes;
}

function unpack(bytes: Uint8Array): { header: Record<string, Entry>; dataStart: number } {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const { __metadata__: _, ...header } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  return { header, dataStart: 8 + length };
}

/** Ways to spoil a folder. Each gets files of its own and random numbers, and changes them as it likes. */
function spoilers(random: () => number, int8: Files): Record<string, (files: Files) => Case> {
  const below = (limit: number) => Math.floor(random() * limit);
  const pick = <T>(items: readonly T[]) => items[below(items.length)];
  const noise = (length: number) => Uint8Array.from({ length }, () => below(256));
  const whole = ({ config, header, data }: Files, mustRefuse?: boolean): Case => (
    { config: JSON.stringify(config), weights: pack(header, data), mustRefuse }
  );
  const deep = (depth: number) => pick(["[", '{"a":']).repeat(depth);
  const junk = () =>
    pick([
      "null",
      "-1",
      "0",
      "1.5",
      "1e9",
      "1e999",
      "9007199254740993",
      '"12"',
      '""',
      "[]",
      "[4]",
      "{}",
      "true",
      "NaN",
      `"${"x".repeat(1000)}"`,
      "[".repeat(50_000) + "]".repeat(50_000),
      String(below(20)),
      String(2 ** below(60)),
      '"relu"',
      '"gpt2"',
    ]);
  const numbers = (text: string, change: (digits: string) => string) => {
    const found = [...text.matchAll(/\d+/g)], { index, 0: digits } = pick(found);
    return text.slice(0, index) + change(digits) + text.slice(index + digits.length);
  };
  const tensor = ({ header }: Files) => pick(Object.keys(header));
  /** Another int8 model, and one of its scales. */
  const scaled = () => {
    const files = structuredClone(int8),
      name = pick(Object.keys(files.header).filter((name) => name.endsWith(".scale")));
    return { files, name, entry: files.header[name] };
  };
  const IGNORED = "h.0.attn.bias"; // a buffer of old checkpoints, which may have any shape

  return {
    "config: random bytes": (files) => ({ ...whole(files), config: noise(below(300)), mustRefuse: true }),
    "config: cut": (files) => {
      const { config } = whole(files);
      return { ...whole(files), config: config.slice(0, below(config.length)), mustRefuse: true };
    },
    "config: a byte changed": (files) => {
      const bytes = encode(files.config);
      bytes[below(bytes.length)] = below(256);
      return { ...whole(files), config: bytes };
    },
    "config: another value": (files) => {
      const name = JSON.stringify(pick([...Object.keys(files.config), "n_inner", "tie_word_embeddings", "n_ctx"]));
      delete files.config[JSON.parse(name)];
      const text = JSON.stringify(files.config);
      return { ...whole(files), config: `{${name}:${junk()},${text.slice(1)}` };
    },
    "config: a key twice": (files) => {
      const text = JSON.stringify(files.config), name = pick(Object.keys(files.config));
      return { ...whole(files), config: `${text.slice(0, -1)},"${name}":${junk()}}` };
    },
    "config: too deep": (files) => ({ ...whole(files), config: deep(10 ** below(6)), mustRefuse: true }),
    "config: too long": (files) => ({ ...whole(files), config: " ".repeat(1_000_001) + "{}", mustRefuse: true }),

    "weights: random bytes": (files) => ({ ...whole(files), weights: noise(below(4000)), mustRefuse: true }),
    "weights: cut": (files) => {
      const { weights } = whole(files);
      return { ...whole(files), weights: weights.subarray(0, below(weights.length)), mustRefuse: true };
    },
    "weights: more": (files) => {
      files.data = new Uint8Array([...files.data, ...noise(1 + below(100))]);
      return whole(files, true);
    },
    "header: a claim of gigabytes": (files) => {
      const weights = pack(files.header, files.data, BigInt(2 ** 20) << BigInt(below(44)));
      return { ...whole(files), weights, mustRefuse: true };
    },
    "header: bytes changed": (files) => {
      const { weights } = whole(files), end = weights.length - files.data.length;
      for (let times = 1 + below(4); times > 0; times--) weights[below(end)] = below(256);
      return { ...whole(files), weights };
    },
    "header: a number changed": (files) => {
      const text = numbers(JSON.stringify(files.header), () => String(below(2 ** 31) * 2 ** below(40)));
      return { ...whole(files), weights: pack(text, files.data) };
    },
    "header: offsets of another tensor": (files) => { // an overlap, and a hole
      const [a, b] = [tensor(files), tensor(files)];
      files.header[a].data_offsets = [...files.header[b].data_offsets];
      return whole(files, a !== b);
    },
    "header: offsets out of range": (files) => {
      const { data_offsets } = files.header[tensor(files)], by = (1 + below(100)) * pick([1, -1]) * 2 ** below(40);
      data_offsets[0] += by;
      data_offsets[1] += by;
      return whole(files, true);
    },
    "header: a name twice": (files) => {
      const name = tensor(files), text = JSON.stringify(files.header);
      const entry = JSON.stringify(files.header[pick([name, tensor(files)])]);
      return { ...whole(files), weights: pack(`{"${name}":${entry},${text.slice(1)}`, files.data), mustRefuse: true };
    },
    "header: too deep": (files) => {
      const weights = pack(`{"a":${deep(10 ** below(6))}`, files.data);
      return { ...whole(files), weights, mustRefuse: true };
    },
    "header: another dtype": (files) => {
      const entry = files.header[tensor(files)], before = entry.dtype;
      entry.dtype = pick(["F64", "I8", "U8", "I32", "BOOL", "F16", "BF16", "F32", "F31", "", "I64", "C64"]);
      return whole(files, entry.dtype !== before && (before === "F32" || !/^B?F16$/.test(entry.dtype)));
    },
    "tensors: one missing": (files) => {
      const last = Object.keys(files.header).at(-1)!, [begin] = files.header[last].data_offsets;
      delete files.header[last];
      files.data = files.data.subarray(0, begin);
      return whole(files, true);
    },
    "tensors: one more": (files) => {
      const end = files.data.length;
      const name = pick([
        "h.1.ln_1.weight",
        "score.weight",
        "wte",
        "transformer.wte.weight",
        "wte.weight ",
        "__proto__",
      ]);
      const more: [string, Entry] = [name, { dtype: "F16", shape: [4], data_offsets: [end, end + 8] }];
      files.header = Object.fromEntries([...Object.entries(files.header), more]);
      files.data = new Uint8Array([...files.data, ...new Uint8Array(8)]);
      return whole(files, true);
    },
    "tensors: one twice, with and without the prefix": (files) => {
      const name = tensor(files), end = files.data.length, [begin, stop] = files.header[name].data_offsets;
      files.header[`transformer.${name}`] = { ...files.header[name], data_offsets: [end, end + stop - begin] };
      files.data = new Uint8Array([...files.data, ...files.data.subarray(begin, stop)]);
      return whole(files, true);
    },
    "tensors: another name": (files) => {
      const name = tensor(files), text = JSON.stringify(files.header);
      return { ...whole(files), weights: pack(text.replace(`"${name}"`, `"${name}2"`), files.data), mustRefuse: true };
    },
    "tensors: another shape": (files) => {
      const { shape } = files.header[tensor(files)], before = `${shape}`;
      if (below(2)) shape.reverse();
      else shape.push(1);
      return whole(files, `${shape}` !== before);
    },
    "values: not finite": (files) => {
      const floats = Object.values(files.header).filter(({ dtype }) => dtype !== "I8");
      const { dtype, data_offsets: [begin, end] } = pick(floats), size = dtype === "F32" ? 4 : 2;
      const view = new DataView(files.data.buffer, files.data.byteOffset);
      const at = begin + size * below((end - begin) / size), value = pick([NaN, Infinity, -Infinity]);
      if (dtype === "F32") view.setFloat32(at, value, true);
      else if (dtype === "F16") view.setFloat16(at, value, true);
      else view.setUint16(at, Number.isNaN(value) ? 0x7fc1 : value > 0 ? 0x7f80 : 0xff80, true);
      return whole(files, true);
    },
    "values: random bytes": (files) => {
      files.data = noise(files.data.length);
      return whole(files);
    },
    "int8: a scale missing": () => {
      const { files, name, entry } = scaled();
      delete files.header[name];
      files.header[IGNORED] = entry;
      return whole(files, true);
    },
    "int8: scales of another shape": () => {
      const { files, entry } = scaled();
      entry.shape = pick([[1, ...entry.shape], [...entry.shape, 1], [entry.shape[0], 1, 1]]);
      return whole(files, true);
    },
    "int8: scales of another type": () => {
      const { files, entry } = scaled(),
        [dtype, width] = pick([["I32", 4], ["F16", 2], ["BF16", 2], ["I8", 1]] as const);
      Object.assign(entry, { dtype, shape: [entry.shape[0] * 4 / width] });
      return whole(files, true);
    },
    "int8: scales that are none": () => {
      const { files, entry: { shape, data_offsets: [begin] } } = scaled();
      const view = new DataView(files.data.buffer, files.data.byteOffset);
      view.setFloat32(begin + 4 * below(shape[0]), pick([NaN, Infinity, -Infinity, 0, -0, -1, -1e-9, 3e38]), true);
      return whole(files, true);
    },
    "int8: where there may be none": () => {
      const files = structuredClone(int8);
      const names = Object.keys(files.header).filter((name) => /(bias|ln_.\.weight|wpe\.weight)$/.test(name));
      const entry = files.header[pick(names)], [begin, end] = entry.data_offsets, middle = begin + (end - begin) / 4;
      Object.assign(entry, { dtype: "I8", data_offsets: [begin, middle] });
      files.header[IGNORED] = { dtype: "U8", shape: [end - middle], data_offsets: [middle, end] };
      return whole(files, true);
    },
    "nothing": (files) => whole(files),
  };
}

/** What loading a model reads, without a place to run it. */
async function read(folder: string): Promise<{ config: GPT2Config; weights: Map<string, Float32Array> }> {
  const config = await readConfig(folder);
  using source = await checkpointWeights(folder, config);
  const weights = new Map<string, Float32Array>();
  for (const [name, shape] of weightShapes(config)) {
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    await source.fill(name, values);
    weights.set(name, values);
  }
  return { config, weights };
}

/** The same from the bytes, in the plainest way. */
function readAgain(bytes: Uint8Array, name: string): Float32Array {
  const { header, dataStart } = unpack(bytes), { dtype, data_offsets: [begin, end] } = header[name];
  const view = new DataView(bytes.buffer, bytes.byteOffset + dataStart + begin, end - begin);
  const size = dtype === "F32" ? 4 : 2;
  if (dtype === "I8") {
    const scale = readAgain(bytes, `${name}.scale`), columns = header[name].shape[1];
    return Float32Array.from(
      { length: end - begin },
      (_, i) => view.getInt8(i) * scale[name === "wte.weight" ? Math.floor(i / columns) : i % columns],
    );
  }
  return Float32Array.from({ length: (end - begin) / size }, (_, i) => {
    if (dtype === "F32") return view.getFloat32(4 * i, true);
    if (dtype === "F16") return view.getFloat16(2 * i, true);
    const wide = new DataView(new ArrayBuffer(4));
    wide.setUint16(2, view.getUint16(2 * i, true), true);
    return wide.getFloat32(0, true);
  });
}

Deno.test("whatever a model's folder holds, reading it ends in a typed error or in exactly that model", async () => {
  const originals: Files[] = [];
  for (const dtype of ["F16", "BF16", "F32", "I8"] as const) {
    let folder = await writeTinyModel({ seed: 3, config: TINY, dtype: dtype === "I8" ? "F32" : dtype });
    if (dtype === "I8") await quantizeModel(folder, folder += "-int8", "int8");
    const bytes = await Deno.readFile(join(folder, "model.safetensors")), { header, dataStart } = unpack(bytes);
    const config = JSON.parse(await Deno.readTextFile(join(folder, "config.json")));
    originals.push({ config, header, data: bytes.slice(dataStart) });
    await Deno.remove(folder, { recursive: true });
  }
  const random = seededRandom(SEED), kinds = Object.entries(spoilers(random, originals[3]));
  const folder = await Deno.makeTempDir(), memoryBefore = Deno.memoryUsage().rss;
  let refused = 0, loaded = 0, slowest = 0, largest = 0;
  for (let i = 0; i < COUNT; i++) {
    const [kind, spoil] = kinds[i % kinds.length];
    const { config, weights, mustRefuse } = spoil(
      structuredClone(originals[Math.floor(i / kinds.length) % originals.length]),
    );
    await Deno.writeFile(join(folder, "config.json"), typeof config === "string" ? encode(config) : config);
    await Deno.writeFile(join(folder, "model.safetensors"), weights);
    const what = `case ${i} of seed ${SEED}, ${kind}`, started = processorSeconds();
    try {
      const model = await read(folder);
      loaded++;
      assert.ok(!mustRefuse, `${what}: it was accepted`);
      const fields = JSON.parse(typeof config === "string" ? config : new TextDecoder().decode(config));
      for (const name of ["vocab_size", "n_positions", "n_embd", "n_layer", "n_head"] as const) {
        if (fields[name] != null) assert.equal(model.config[name], fields[name], `${what}: ${name}`);
      }
      for (const [name, values] of model.weights) {
        assert.ok(values.every(Number.isFinite), `${what}: ${name} is not finite`);
        assert.deepEqual(values, readAgain(weights, name), `${what}: ${name}`);
      }
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      const { message, name } = error as Error,
        typed = error instanceof SafetensorsError || /^(Range|Type)Error$/.test(name);
      assert.ok(typed && message.includes(folder) && message.length < 1000, `${what}: ${error}`);
      assert.ok(kind !== "nothing", `${what}: ${error}`);
      if (kind === "values: not finite") assert.match(message, / holds (NaN|-?Infinity), at index \d+: /);
      refused++;
    }
    slowest = Math.max(slowest, processorSeconds() - started);
    if (i % 100 === 0) largest = Math.max(largest, Deno.memoryUsage().rss - memoryBefore);
  }
  await Deno.remove(folder, { recursive: true });
  console.log(
    `${COUNT} folders of ${kinds.length} kinds (seed ${SEED}): ${refused} refused, ${loaded} read and equal; ` +
      `slowest ${(1000 * slowest).toFixed(0)} ms, memory grew by at most ${Math.round(largest / 1e6)} MB`,
  );
  assert.ok(refused > 0.6 * COUNT && loaded > 0.05 * COUNT, "both ends should be reached");
  assert.ok(slowest < 2 && largest < 300e6);
});

Deno.test("a folder whose parts are no files is refused, not waited for", async () => {
  const folder = await writeTinyModel({ seed: 1, config: TINY });
  for (const name of ["model.safetensors", "config.json"]) {
    await Deno.remove(join(folder, name));
    if (Deno.build.os !== "windows") {
      assert.ok((await new Deno.Command("mkfifo", { args: [join(folder, name)] }).output()).success);
      await assert.rejects(read(folder), /there is no/);
      await Deno.remove(join(folder, name));
      await Deno.symlink("/dev/zero", join(folder, name));
      await assert.rejects(read(folder), /there is no/);
      await Deno.remove(join(folder, name));
    }
    await Deno.mkdir(join(folder, name));
    await assert.rejects(read(folder), /there is no/);
  }
  await Deno.remove(folder, { recursive: true });
});
