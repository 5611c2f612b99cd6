/** How much memory there is: on this machine, within control groups, and on each backend. */

import assert from "node:assert/strict";
import { checkMemory } from "../lib/engine/memory.ts";
import { KvCache } from "../lib/engine/kv_cache.ts";
import { generateBatch } from "../lib/engine/generate.ts";
import { gpt2Config } from "../lib/gpt2/config.ts";
import { readConfig } from "../lib/gpt2/config_file.ts";
import { checkWeightMemory, loadGPT2, randomGPT2 } from "../lib/gpt2/load.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { packsForOneRow } from "../lib/tensorflow/packing.ts";
import { availableMemory, cgroupMemory } from "../lib/util/host_memory.ts";
import { testOnEach, workingBackends } from "./_support/backends.ts";
import { runs } from "./_support/programs.ts";

const V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory";
const V2 = "41 31 0:38 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
const UNLIMITED = "9223372036854771712"; // as version 1 says it
const GB = 1e9;

/** The files of a version 1 group in `folder`. */
function v1(folder: string, limit: number | string, usage: number, cached = 0) {
  return {
    [`${folder}/memory.limit_in_bytes`]: `${limit}\n`,
    [`${folder}/memory.usage_in_bytes`]: `${usage}\n`,
    [`${folder}/memory.stat`]:
      `cache 9\ninactive_file 1\ntotal_cache 9\ntotal_inactive_file ${cached}\ntotal_active_file 0\n`,
  };
}

/** The same of version 2. */
function v2(folder: string, limit: number | string, usage: number, cached = 0) {
  return {
    [`${folder}/memory.max`]: `${limit}\n`,
    [`${folder}/memory.current`]: `${usage}\n`,
    [`${folder}/memory.stat`]: `anon 5\nfile 9\ninactive_file 0\nactive_file ${cached}\nslab 3\n`,
  };
}

const CASES: Record<string, { group: string; mounts: string[]; files: Record<string, string>; expected: number }> = {
  "no control groups": { group: "", mounts: [], files: {}, expected: Infinity },
  "version 2 without a limit": {
    group: "0::/user.slice\n",
    mounts: [V2],
    files: v2("/sys/fs/cgroup/user.slice", "max", GB),
    expected: Infinity,
  },
  "version 2, a container with its own view": {
    group: "0::/\n",
    mounts: [V2],
    files: v2("/sys/fs/cgroup", 2 * GB, 0.5 * GB),
    expected: 1.5 * GB,
  },
  "version 2: what is cached of files is given back": {
    group: "0::/\n",
    mounts: [V2],
    files: v2("/sys/fs/cgroup", 2 * GB, 1.75 * GB, 0.5 * GB),
    expected: 0.75 * GB,
  },
  "version 2: a group above is tighter": {
    group: "0::/a/b/c\n",
    mounts: [V2],
    files: {
      ...v2("/sys/fs/cgroup/a/b/c", 8 * GB, 1 * GB),
      ...v2("/sys/fs/cgroup/a/b", "max", 1 * GB),
      ...v2("/sys/fs/cgroup/a", 4 * GB, 3 * GB),
    },
    expected: 1 * GB,
  },
  "version 2: a group next to ours does not count": {
    group: "0::/a/b\n",
    mounts: [V2],
    files: { ...v2("/sys/fs/cgroup/a/b", 3 * GB, 1 * GB), ...v2("/sys/fs/cgroup/a/c", 1 * GB, 1 * GB) },
    expected: 2 * GB,
  },
  "version 2: more is used than is allowed": {
    group: "0::/\n",
    mounts: [V2],
    files: v2("/sys/fs/cgroup", 1 * GB, 1.2 * GB),
    expected: 0,
  },
  "version 1 without a limit": {
    group: "4:memory:/job\n1:cpu:/\n",
    mounts: [V1],
    files: v1("/sys/fs/cgroup/memory/job", UNLIMITED, GB),
    expected: Infinity,
  },
  "version 1, nested, beside controllers of other names": {
    group: "9:name=systemd:/\n4:cpu,cpuacct:/x\n3:memory:/job/step\n0::/\n",
    mounts: [
      "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
      V1,
      "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd",
      "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
    ],
    files: {
      ...v1("/sys/fs/cgroup/memory/job/step", UNLIMITED, 1 * GB),
      ...v1("/sys/fs/cgroup/memory/job", 5 * GB, 2 * GB, 1 * GB),
      ...v1("/sys/fs/cgroup/memory", UNLIMITED, 20 * GB),
    },
    expected: 4 * GB,
  },
  "version 1, a container that sees its own part under the name that it has outside": {
    group: "3:memory:/docker/0123\n",
    mounts: ["35 31 0:32 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"],
    files: v1("/sys/fs/cgroup/memory", 2 * GB, 1 * GB),
    expected: 1 * GB,
  },
  "a group within that container": {
    group: "3:memory:/docker/0123/inner\n",
    mounts: ["35 31 0:32 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"],
    files: { ...v1("/sys/fs/cgroup/memory", 9 * GB, 1 * GB), ...v1("/sys/fs/cgroup/memory/inner", 2 * GB, 1 * GB) },
    expected: 1 * GB,
  },
  "a name that does not lie in what is mounted": {
    group: "0::/../other\n",
    mounts: [V2],
    files: v2("/sys/fs/cgroup", 2 * GB, 1 * GB),
    expected: 1 * GB,
  },
  "a mount point with a space in its name, and a limit on both versions": {
    group: "3:memory:/\n0::/\n",
    mounts: ["41 31 0:38 / /my\\040groups rw - cgroup2 cgroup2 rw", V1],
    files: { ...v2("/my groups", 2 * GB, 1 * GB), ...v1("/sys/fs/cgroup/memory", 6 * GB, 1 * GB) },
    expected: 1 * GB,
  },
  "files that hold something else": {
    group: "garbage\n0::/\n::::\n",
    mounts: [V2, "garbage", ""],
    files: { "/sys/fs/cgroup/memory.max": "lots\n", "/sys/fs/cgroup/memory.current": "" },
    expected: Infinity,
  },
};

for (const [name, { group, mounts, files, expected }] of Object.entries(CASES)) {
  Deno.test(`control groups: ${name}`, () => {
    const all: Record<string, string> = {
      ...files,
      "/proc/self/cgroup": group,
      "/proc/self/mountinfo": mounts.map((line) => line + "\n").join(""),
    };
    assert.equal(cgroupMemory((path) => all[path]), expected);
  });
}

Deno.test("what is available is no more than the machine has free", () => {
  const { available } = Deno.systemMemoryInfo(), found = availableMemory();
  assert.ok(found > 0 && found < 1.1 * available + 1e8, `${found} of ${available}`);
});

const backends = await workingBackends();

testOnEach(backends, "a batch and a model are refused by what the backend says is available", async (backend) => {
  const available = backend.availableMemory(), onGpu = / on the GPU/.test(backend.description);
  assert.equal(available !== undefined, backend.name !== "webgpu" || /on the processor/.test(backend.description));
  if (available !== undefined) {
    assert.ok(available > 1e7 && (onGpu || available < 1.2 * availableMemory() + 1e8), `${available}`);
  }

  let free: number | undefined = 1e9;
  const bounded = Object.create(backend, { availableMemory: { value: () => free } });
  using model = await loadGPT2("models/small", { backend: bounded });
  const inputs = padBatch([[1, 2, 3]], { padTokenId: 0 }), options = { maxTokens: 4 };
  const expected = await generateBatch(model, inputs, options);
  free = 100_000;
  await assert.rejects(generateBatch(model, inputs, options), {
    name: "RangeError",
    message:
      /^Cannot generate for 1 rows of up to 7 tokens: that needs \d+ bytes .* and no more than 100 kB are free, of the machine or of/,
  });
  await assert.rejects(loadGPT2("models/small", { backend: bounded }), {
    name: "RangeError",
    message:
      /^Cannot load [\d,]+ weights as float32: that needs \d+ bytes .*Use a smaller model or a dtype of fewer bits/,
  });
  free = 2e9; // more than the 0.5 GB of GPT-2, less than the 6.2 GB of GPT-2 XL
  await assert.rejects(randomGPT2(gpt2Config("gpt2-xl"), { backend: bounded }), /Cannot load 1,557,611,200 weights/);
  free = undefined;
  assert.deepEqual(await generateBatch(model, inputs, options), expected, "a backend that cannot tell refuses nothing");
});

Deno.test("low-precision weights take the memory of their type, and the embeddings float32's", () => {
  const config = gpt2Config("gpt2"), embeddings = (50257 + 1024) * 768, others = 124_439_808 - embeddings;
  const head = 50257 * 768, backend = { availableMemory: () => 0 };
  const needed = (dtype: "float32" | "bfloat16" | "int8") => {
    try {
      checkWeightMemory(config, backend, dtype);
    } catch (error) {
      return Number(/needs (\d+) bytes/.exec((error as Error).message)![1]);
    }
  };
  assert.equal(needed("float32"), 4 * 124_439_808);
  assert.equal(needed("bfloat16"), 4 * embeddings + 2 * (others + head));
  assert.equal(needed("int8"), 4 * embeddings + others + head);
});

Deno.test({
  name:
    "a decode step of one row keeps no copies of int8 weights where there is AMX; else it shares those of a few rows",
  ignore: !backends.working.some(({ name, stepBuckets }) => name === "tensorflow" && stepBuckets), // not on a GPU
  async fn() {
    const program = `
      import { gpt2Config, KvCache, randomGPT2, Runner, useBackend } from ${
      JSON.stringify(new URL("../lib/mod.ts", import.meta.url).href)
    };
      const backend = await useBackend("tensorflow"), config = { ...gpt2Config("gpt2-medium"), vocab_size: 1000 };
      const model = await randomGPT2(config, { backend, dtype: "int8", activations: "dynamic" }), grown = [];
      for (const rows of [1, 2]) {
        const cache = new KvCache(model), feeds = cache.admit({ slots: Array(rows).fill(16) });
        const before = Deno.memoryUsage().rss;
        await Runner.of(model).step(cache, feeds.map((row) => ({ row, tokens: [0] })));
        grown.push(Deno.memoryUsage().rss - before);
      }
      console.log(JSON.stringify(grown));`;
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: ["eval", program] }).output();
    assert.equal(new TextDecoder().decode(stderr), "");
    const weights = 24 * 12 * 1024 * 1024, [one, two] = JSON.parse(new TextDecoder().decode(stdout));
    const [few, many] = packsForOneRow("int8") ? [two, one] : [one, two];
    assert.ok(few < 0.3 * weights && many > 0.8 * weights, `${one} and ${two} bytes, and the weights are ${weights}`);
  },
});

const LIMIT = 1.5e9;

/** A command line's start that runs what follows in a control group of {@link LIMIT} bytes, where that can be had. */
async function limited(): Promise<{ command: string[]; dispose: () => void } | null> {
  if (Deno.build.os !== "linux") return null;
  const own = /^\d+:memory:(.*)$/m.exec(await Deno.readTextFile("/proc/self/cgroup"))?.[1];
  const folder = `/sys/fs/cgroup/memory${own}/omnibus-${crypto.randomUUID()}`;
  try {
    await Deno.mkdir(folder);
    await Deno.writeTextFile(`${folder}/memory.limit_in_bytes`, `${LIMIT}`);
    const enter = `echo $$ > ${folder}/cgroup.procs && exec "$@"`;
    return { command: ["sh", "-c", enter, "sh"], dispose: () => Deno.removeSync(folder) };
  } catch { /* Version 2, or somebody else's. */ }
  const command = ["systemd-run", "--user", "--scope", "--quiet", `--property=MemoryMax=${LIMIT}`];
  return await runs(command[0], ...command.slice(1), "true") ? { command, dispose() {} } : null;
}

const trial = await limited();
trial?.dispose();
Deno.test({
  name: "in a control group of 1.5 GB, a batch that needs more than twice that is refused, and one that fits runs" +
    (trial ? "" : " (none can be made here)"),
  ignore: !trial || availableMemory() < 3 * LIMIT,
  async fn() {
    const group = await limited(), config = await readConfig("models/small");
    const rows = Math.ceil(2 * LIMIT / KvCache.bytes(config, 1, 256));
    checkMemory({ config, backend: { availableMemory }, cachedBytes: 4 }, rows, 1, 255); // the control: outside the group it is allowed
    const program = `
      import { generateBatch, loadGPT2, useBackend } from ${
      JSON.stringify(new URL("../lib/mod.ts", import.meta.url).href)
    };
      const model = await loadGPT2("models/small", { backend: await useBackend("tensorflow") });
      const batch = (rows) => ({ inputIds: Array(rows).fill([1]), attentionMask: Array(rows).fill([1]) });
      const [{ tokens }] = await generateBatch(model, batch(1), { maxTokens: 255, ignoreEos: true });
      const refusal = await generateBatch(model, batch(${rows}), { maxTokens: 255, ignoreEos: true }).catch((e) => e.message);
      console.log(JSON.stringify({ tokens: tokens.length, refusal }));`;
    try {
      const [command, ...args] = [...group!.command, Deno.execPath(), "eval", program];
      const { code, signal, stdout, stderr } = await new Deno.Command(command, { args }).output();
      assert.deepEqual([code, signal], [0, null], new TextDecoder().decode(stderr));
      const { tokens, refusal } = JSON.parse(new TextDecoder().decode(stdout));
      assert.equal(tokens, 255);
      const [, free] = /needs \d{10,} bytes .* and no more than (\d\.\d) GB are free/.exec(refusal) ?? [];
      assert.ok(Number(free) > 0.3 && Number(free) < LIMIT / 1e9, refusal);
    } finally {
      group!.dispose();
    }
  },
});
