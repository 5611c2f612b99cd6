import assert from "node:assert/strict";
import { join } from "node:path";
import {
  openSafetensors,
  openWeights,
  SafetensorsError,
  streamSafetensors,
  type TensorDeclaration,
  writeSafetensors,
} from "../lib/safetensors/reader.ts";
import type { TensorData } from "../lib/safetensors/reader.ts";
import { seededNormal, seededRandom } from "../lib/util/random.ts";
import { processorSeconds } from "./_support/processor.ts";

async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A file of this header (its text, or what becomes it), and as many bytes of data. */
function fileOf(header: unknown, dataBytes = 0, claimedLength?: bigint): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, claimedLength ?? BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

const normals = (count: number, next = seededNormal(count)) => Float32Array.from({ length: count }, next);
const entry = (dtype: unknown, shape: unknown, data_offsets: unknown) => ({ dtype, shape, data_offsets });

Deno.test("the shipped model's tensors have the right shapes and fill its file", async () => {
  using weights = await openWeights("models/small");
  assert.equal(weights.tensors.size, 52);
  assert.deepEqual(weights.metadata, new Map([["format", "pt"]]));
  let parameters = 0;
  for (const [name, { dtype, shape }] of weights.tensors) {
    assert.equal(dtype, "F16");
    const values = await weights.readFloat32(name);
    assert.equal(values.length, shape.reduce((a, b) => a * b, 1));
    assert.ok(values.every(Number.isFinite), name);
    parameters += values.length;
  }
  assert.equal(parameters, 11_478_336);
});

Deno.test("what is written is read back, as each type rounds it", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "a.safetensors");
    const data = normals(2 ** 20 + 3); // more than one chunk
    const tensors = new Map<string, TensorData>([
      ["odd", { dtype: "I8", shape: [3], data: new Int8Array([-128, 0, 127]) }],
      ["f32", { dtype: "F32", shape: [data.length], data }],
      ["f16", { dtype: "F16", shape: [data.length, 1], data }],
      ["bf16", { dtype: "BF16", shape: [1, data.length], data }],
      ["none", { dtype: "F32", shape: [0, 7], data: new Float32Array(0) }],
      ["one", { dtype: "F32", shape: [], data: new Float32Array([42]) }],
      ['"näme"\n', { dtype: "F16", shape: [1], data: new Float32Array([0.5]) }],
    ]);
    await writeSafetensors(path, tensors, { format: "pt", note: 'ä "b"' });
    using file = await openSafetensors(path);
    assert.deepEqual(file.metadata, new Map([["format", "pt"], ["note", 'ä "b"']]));
    assert.equal(file.tensors.size, tensors.size);
    for (const [name, { dtype, shape, data }] of tensors) {
      const info = file.tensors.get(name)!;
      assert.deepEqual([info.dtype, info.shape], [dtype, shape]);
      assert.equal(info.byteOffset % { F32: 4, F16: 2, BF16: 2, I8: 1 }[dtype], 0);
      if (dtype === "I8") {
        assert.deepEqual(await file.readInt8(name), data);
      } else {
        const step = { F32: 0, F16: 2 ** -11, BF16: 2 ** -8 }[dtype];
        const values = await file.readFloat32(name);
        assert.equal(values.length, data.length);
        // 2^-25: half a step among float16's smallest numbers.
        assert.ok(
          values.every((value, i) => Math.abs(value - data[i]) <= step * Math.abs(data[i]) + (step && 2 ** -25)),
          name,
        );
      }
    }
  });
});

Deno.test("reads may overlap in time, and may go into a part of an array", async () => {
  using file = await openSafetensors("models/small/model.safetensors");
  const names = [...file.tensors.keys()].slice(0, 12);
  const one = [];
  for (const name of names) one.push(await file.readFloat32(name));
  assert.deepEqual(await Promise.all(names.map((name) => file.readFloat32(name))), one);

  const room = new Float32Array(one[0].length + 2).fill(7);
  await file.readFloat32Into(names[0], room.subarray(1, -1));
  assert.deepEqual([room[0], room.at(-1)], [7, 7]);
  assert.deepEqual(room.slice(1, -1), one[0]);
});

Deno.test("reading says what cannot be read, and how", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "a.safetensors");
    await Deno.writeFile(path, fileOf({ mask: entry("BOOL", [4], [0, 4]), x: entry("I8", [4], [4, 8]) }, 8));
    using file = await openSafetensors(path);
    await assert.rejects(
      file.readFloat32("y"),
      /^SafetensorsError: Cannot read .*a\.safetensors: there is no tensor "y"/,
    );
    await assert.rejects(file.readFloat32("mask"), /"mask" is BOOL, .* F32, F16, BF16/);
    await assert.rejects(file.readFloat32("x"), /"x" is I8/);
    await assert.rejects(file.readInt8("mask"), /"mask" is BOOL/);
    const small = await openSafetensors("models/small/model.safetensors");
    const into = small.readFloat32Into("transformer.ln_f.bias", new Float32Array(10));
    await assert.rejects(into, /^RangeError: Cannot read "transformer\.ln_f\.bias" into 10 numbers: it has 192/);
    small[Symbol.dispose]();
    await assert.rejects(small.readFloat32("transformer.ln_f.bias"), /SafetensorsError.*it was closed/);
    await Deno.truncate(path, (await Deno.stat(path)).size - 4);
    await assert.rejects(file.readInt8("x"), /SafetensorsError.*it ends 4 bytes too early/);
  });
  await assert.rejects(
    openSafetensors("tests/none.safetensors"),
    /SafetensorsError.*none\.safetensors: there is no such file/,
  );
  await assert.rejects(openSafetensors("tests"), SafetensorsError);
});

Deno.test("a header must tell the truth, all of it, once", async () => {
  const f32 = entry("F32", [2], [0, 8]);
  const deep = `{"a":${"[".repeat(1_000_000)}`;
  const cases: [string, Uint8Array, RegExp][] = [
    ["empty", new Uint8Array(0), /it has 0 bytes/],
    ["shorter than a length", new Uint8Array(7), /it has 7 bytes/],
    ["a length beyond the file", fileOf({ a: f32 }, 8, 2n ** 40n), /claims a header of 1099511627776 bytes/],
    ["the largest length", fileOf({ a: f32 }, 8, 2n ** 64n - 1n), /claims a header/],
    ["no length", fileOf("", 8), /does not begin with \{/],
    ["a space first", fileOf(" {}"), /does not begin with \{/],
    ["an array", fileOf([]), /does not begin with \{/],
    ["not UTF-8", fileOf({ a: f32 }, 8).with(11, 0xff), /not UTF-8/],
    ["cut", fileOf('{"a":{"dtype":"F32"'), /is expected/],
    ["two objects", fileOf("{}{}"), /something follows/],
    ["deep", fileOf(deep), /\{ is expected/],
    ["deep objects", fileOf('{"a":'.repeat(100_000)), /unknown key "a"/],
    ["overlap", fileOf({ a: f32, b: entry("F32", [2], [4, 12]) }, 12), /"b" begins at byte .* expected/],
    ["the same bytes twice", fileOf({ a: f32, b: f32 }, 8), /"b" begins at byte/],
    ["a hole", fileOf({ a: f32, b: entry("F32", [2], [12, 20]) }, 20), /"b" begins at byte/],
    ["a hole in front", fileOf({ a: entry("F32", [2], [4, 12]) }, 12), /"a" begins at byte/],
    ["bytes after the last", fileOf({ a: f32 }, 9), /tensors end at byte/],
    ["too few bytes", fileOf({ a: f32 }, 7), /tensors end at byte/],
    ["gigabytes", fileOf({ a: entry("F32", [2 ** 30], [0, 2 ** 32]) }, 8), /tensors end at byte/],
    ["a size that wraps around", fileOf({ a: entry("F32", [2 ** 32, 2 ** 32], [0, 0]) }), /needs .* bytes and has 0/],
    ["sizes beyond numbers", fileOf({ a: entry("F32", Array(32).fill(2 ** 52), [0, 0]) }), /needs .* bytes/],
    ["size against shape", fileOf({ a: entry("F32", [3], [0, 8]) }, 8), /"a", F32 \[3\], needs 12 bytes and has 8/],
    ["backwards", fileOf({ a: entry("F32", [2], [8, 0]) }, 8), /needs 8 bytes and has -8/],
    ["an unknown type", fileOf({ a: entry("F31", [2], [0, 8]) }, 8), /unknown dtype "F31"/],
    ["a type from the prototype", fileOf({ a: entry("toString", [2], [0, 8]) }, 8), /unknown dtype/],
    ["a negative length", fileOf({ a: entry("F32", [-2, -1], [0, 8]) }, 8), /no whole number/],
    ["a fraction", fileOf({ a: entry("F32", [1.5], [0, 6]) }, 6), /is expected/],
    ["a number as text", fileOf({ a: entry("F32", ["2"], [0, 8]) }, 8), /no whole number/],
    [
      "an unsafe number",
      fileOf('{"a":{"dtype":"I8","shape":[9007199254740993],"data_offsets":[0,1]}}', 1),
      /no whole number/,
    ],
    ["many dimensions", fileOf({ a: entry("F32", Array(33).fill(1), [0, 4]) }, 4), /more than 32 numbers/],
    ["three offsets", fileOf({ a: entry("F32", [2], [0, 4, 8]) }, 8), /more than 2 numbers/],
    ["one offset", fileOf({ a: entry("F32", [2], [8]) }, 8), /two data_offsets/],
    ["no shape", fileOf({ a: { dtype: "F32", data_offsets: [0, 4] } }, 4), /no shape/],
    ["no dtype", fileOf({ a: { shape: [1], data_offsets: [0, 4] } }, 4), /unknown dtype ""/],
    ["a null", fileOf({ a: null }), /\{ is expected/],
    ["a name twice", fileOf(`{"a":${JSON.stringify(f32)},"a":${JSON.stringify(f32)}}`, 8), /the key "a" comes twice/],
    ["a name twice, escaped", fileOf(`{"a":${JSON.stringify(f32)},"\\u0061":${JSON.stringify(f32)}}`, 8), /twice/],
    ["a key twice", fileOf('{"a":{"dtype":"F32","dtype":"F16","shape":[4],"data_offsets":[0,8]}}', 8), /twice/],
    ["notes that are not text", fileOf({ __metadata__: { a: 1 } }), /" is expected/],
    ["notes twice", fileOf('{"__metadata__":{},"__metadata__":{}}'), /twice/],
    ["a raw line break in a name", fileOf('{"a\n":{}}'), /illegal character/],
    ["a string without an end", fileOf(`{"${"\\".repeat(100_001)}`), /does not end/],
  ];
  await withFolder(async (folder) => {
    const path = join(folder, "bad.safetensors");
    for (const [what, bytes, message] of cases) {
      await Deno.writeFile(path, bytes);
      await assert.rejects(openSafetensors(path), (error: Error) => {
        assert.ok(error instanceof SafetensorsError && error.message.includes(path), `${what}: ${error}`);
        assert.match(error.message, message, what);
        return true;
      });
    }
    const good = fileOf(
      '{ "b" : {"data_offsets":[0,0],"shape":[3,0],"dtype":"F64"},\n"__proto__":{"dtype":"U8","shape":[],"data_offsets":[0,1]} }  ',
      1,
    );
    await Deno.writeFile(path, good);
    using file = await openSafetensors(path);
    assert.deepEqual([...file.tensors.keys()], ["b", "__proto__"]);
  });
});

Deno.test("whatever bytes come, opening ends in tensors that fit the file or in a SafetensorsError", async () => {
  const seed = 20, count = 3000;
  const random = seededRandom(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  await withFolder(async (folder) => {
    const path = join(folder, "fuzz.safetensors");
    await writeSafetensors(
      path,
      new Map<string, TensorData>([
        ["h.0.attn.c_attn.weight", { dtype: "F16", shape: [4, 12], data: normals(48) }],
        ["h.0.attn.c_attn.bias", { dtype: "F32", shape: [12], data: normals(12) }],
        ["wte", { dtype: "BF16", shape: [5, 4], data: normals(20) }],
        ["q", { dtype: "I8", shape: [3], data: new Int8Array(3) }],
      ]),
      { format: "pt" },
    );
    const original = await Deno.readFile(path);
    const headerEnd = 8 + Number(new DataView(original.buffer).getBigUint64(0, true));
    const marks = new TextEncoder().encode('{}[],:"\\0123456789 F\n\0\xff');
    const mutate: ((bytes: Uint8Array) => Uint8Array)[] = [
      (bytes) => bytes.subarray(0, below(bytes.length)),
      (bytes) => bytes.with(below(bytes.length), below(256)),
      (bytes) => bytes.with(8 + below(headerEnd - 8), marks[below(marks.length)]),
      (bytes) => bytes.with(below(8), below(256)),
      (bytes) => { // a piece of the header, moved over another
        const copy = bytes.slice(), from = 8 + below(headerEnd - 8), length = below(40);
        copy.set(bytes.subarray(from, Math.min(from + length, headerEnd)), 8 + below(headerEnd - 48));
        return copy;
      },
      (bytes) => { // a number made huge
        const text = new TextDecoder("latin1").decode(bytes.subarray(8, headerEnd));
        const numbers = [...text.matchAll(/\d+/g)];
        const { index, 0: digits } = numbers[below(numbers.length)];
        const changed = text.slice(0, index) + below(2 ** 31) * 2 ** below(40) + text.slice(index + digits.length);
        const file = fileOf(changed, bytes.length - headerEnd);
        return file;
      },
    ];
    const memoryBefore = Deno.memoryUsage().rss;
    let refused = 0, slowest = 0;
    for (let i = 0; i < count; i++) {
      const times = 1 + (i % 2) * below(4);
      let bytes: Uint8Array = mutate[i % mutate.length](original);
      for (let more = 1; more < times && bytes.length >= headerEnd; more++) bytes = mutate[1 + below(3)](bytes);
      await Deno.writeFile(path, bytes);
      const started = processorSeconds();
      try {
        using file = await openSafetensors(path);
        for (const [name, { dtype, shape, byteLength }] of file.tensors) {
          assert.ok(byteLength <= bytes.length);
          const elements = shape.reduce((a, b) => a * b, 1);
          if (["F32", "F16", "BF16"].includes(dtype)) assert.equal((await file.readFloat32(name)).length, elements);
          if (dtype === "I8") assert.equal((await file.readInt8(name)).length, elements);
        }
      } catch (error) {
        assert.ok(error instanceof SafetensorsError, `file ${i} of seed ${seed}: ${error}`);
        refused++;
      }
      slowest = Math.max(slowest, processorSeconds() - started);
    }
    const grown = (Deno.memoryUsage().rss - memoryBefore) / 1e6;
    console.log(
      `${count} damaged files (seed ${seed}): ${refused} refused, ${count - refused} still whole; ` +
        `slowest ${(1000 * slowest).toFixed(0)} ms, memory grew by ${grown.toFixed(0)} MB`,
    );
    assert.ok(refused > count / 2 && refused < count, "the damage should matter mostly, not always");
    assert.ok(slowest < 2 && grown < 300);
  });
});

Deno.test("a model in shards reads like one in a single file", async () => {
  await withFolder(async (folder) => {
    const a = normals(6), b = normals(8);
    await writeSafetensors(
      join(folder, "model-1.safetensors"),
      new Map([["a", { dtype: "F32", shape: [2, 3], data: a }]]),
    );
    await writeSafetensors(
      join(folder, "model-2.safetensors"),
      new Map<string, TensorData>([
        ["b", { dtype: "F32", shape: [8], data: b }],
        ["q", { dtype: "I8", shape: [2], data: new Int8Array([1, -1]) }],
      ]),
      { format: "pt" },
    );
    const index = join(folder, "model.safetensors.index.json");
    const openWith = async (weight_map: unknown) => {
      await Deno.writeTextFile(index, JSON.stringify({ metadata: { total_size: 58 }, weight_map }));
      return await openWeights(folder);
    };
    {
      using weights = await openWith({ b: "model-2.safetensors", a: "model-1.safetensors", q: "model-2.safetensors" });
      assert.deepEqual([...weights.tensors.keys()], ["b", "a", "q"]);
      assert.deepEqual(await Promise.all([weights.readFloat32("a"), weights.readFloat32("b")]), [a, b]);
      assert.deepEqual(await weights.readInt8("q"), new Int8Array([1, -1]));
      assert.deepEqual(weights.metadata, new Map([["format", "pt"]]));
      const room = new Float32Array(6);
      await weights.readFloat32Into("a", room);
      assert.deepEqual(room, a);
      await assert.rejects(weights.readFloat32("c"), /SafetensorsError.*index\.json: there is no tensor "c"/);
    }
    const shards = [
      "../model-1.safetensors",
      "/etc/passwd",
      "a/b.safetensors",
      "..\\b.safetensors",
      "..",
      "",
      "model.bin",
      3,
      null,
    ];
    for (const shard of shards) {
      await assert.rejects(openWith({ a: shard }), /SafetensorsError.* not the name of a safetensors file/, `${shard}`);
    }
    await assert.rejects(
      openWith({ z: "model-1.safetensors" }),
      /SafetensorsError.*"z" is not in model-1\.safetensors/,
    );
    await assert.rejects(
      openWith({ a: "model-3.safetensors" }),
      /SafetensorsError.*model-3\.safetensors: there is no such file/,
    );
    for (const map of [undefined, null, [], "a"]) {
      await assert.rejects(openWith(map), /SafetensorsError.*no weight_map/);
    }
    for (const text of ["", "{", "[".repeat(1_000_000), " ".repeat(5_000_000)]) {
      await Deno.writeTextFile(index, text);
      await assert.rejects(openWeights(folder), SafetensorsError);
    }
    await Deno.remove(index);
    await assert.rejects(openWeights(folder), /there is no such file, nor a model\.safetensors\.index\.json/);
  });
});

Deno.test("writeSafetensors() leaves the old file alone when it fails, and nothing else behind", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "a.safetensors");
    const good: TensorData = { dtype: "F32", shape: [2], data: new Float32Array([1, 2]) };
    await writeSafetensors(path, new Map([["a", good]]));
    const before = await Deno.readFile(path);
    const streamed = (write: Parameters<typeof streamSafetensors>[3]) =>
      streamSafetensors(
        path,
        new Map<string, TensorDeclaration>([["a", good], ["b", { dtype: "I8", shape: [1] }]]),
        {},
        write,
      );
    await assert.rejects(
      streamed(async (put) => {
        await put("a", new Float32Array([3, 4])); // is on the disk by now
        throw new Error("no more");
      }),
      /no more/,
    );
    await assert.rejects(streamed((put) => put("a", good.data)), /without the tensor "b"/);
    await assert.rejects(streamed((put) => put("c", good.data)), /"c": it was not declared/);
    await assert.rejects(streamed((put) => put("b", good.data)), /"b": I8 takes the values of a Int8Array/);
    await assert.rejects(
      streamed(async (put) => {
        for (let i = 0; i < 2; i++) await put("a", good.data);
      }),
      /"a": it came before/,
    );
    const wrong: TensorData = { ...good, shape: [3] };
    await assert.rejects(
      writeSafetensors(path, new Map([["b", wrong]])),
      /Cannot write the tensor "b": its shape \[3\] wants 3 values and it has 2/,
    );
    await assert.rejects(
      writeSafetensors(path, new Map([["__metadata__", good]])),
      /Cannot write the tensor "__metadata__"/,
    );
    await Deno.mkdir(join(folder, "taken"));
    await assert.rejects(writeSafetensors(join(folder, "taken"), new Map([["a", good]])));
    assert.deepEqual(await Deno.readFile(path), before);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), ["a.safetensors", "taken"]);
    await writeSafetensors(join(folder, "new", "a.safetensors"), new Map([["a", good]])); // makes its folder
    assert.deepEqual(await Deno.readFile(join(folder, "new", "a.safetensors")), before);
    await assert.rejects(writeSafetensors(join(path, "a.safetensors"), new Map([["a", good]]))); // a file is no folder
  });
});
