/** oneDNN by itself: what its backend must know of processors that are not this one, and of memory. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { measureRoofs } from "../lib/bench/roofline.ts";
import { HostMemory } from "../lib/onednn/host_memory.ts";
import { ensureOnednn } from "../lib/onednn/install.ts";
import { ThreadCount } from "../lib/onednn/thread_count.ts";

const library = await ensureOnednn().catch(() => null);

/** The types of weights that work where oneDNN uses no instructions newer than these. */
async function dtypesWith(instructions: string): Promise<string[]> {
  const file = (name: string) => JSON.stringify(new URL(`../lib/onednn/${name}.ts`, import.meta.url).href);
  const program = `
    import { Onednn } from ${file("library")};
    import { workingDtypes } from ${file("probe")};
    console.log(JSON.stringify(workingDtypes(new Onednn(${JSON.stringify(library)}, 1))));`;
  const env = { ONEDNN_MAX_CPU_ISA: instructions }, args = ["eval", program];
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, env }).output();
  assert.equal(new TextDecoder().decode(stderr), "");
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test({
  name: "a processor has the types of weights that oneDNN multiplies rightly there",
  ignore: library === null,
  async fn() {
    assert.deepEqual(await dtypesWith("AVX2"), ["float32"], "no bfloat16, and int8 is added up in 16 bits");
    assert.ok(!(await dtypesWith("AVX512_CORE")).includes("int8"), "likewise");
    const all = await dtypesWith("ALL"), processor = await Deno.readTextFile("/proc/cpuinfo");
    assert.ok(all.includes("float32"));
    if (processor.includes(" avx512_vnni ")) assert.deepEqual(all, ["float32", "bfloat16", "int8"]);
  },
});

Deno.test("a step has as many threads as others leave processors, counted while steps follow each other", () => {
  /** So many seconds pass, in which others use so many of the four processors, and a step all the rest, if one is under way. */
  const pass = (seconds: number, others: number, running: boolean) => {
    times.elapsed += seconds;
    times[running ? "own" : "idle"] += (4 - others) * seconds;
  };
  const times = { elapsed: 100, idle: 0, own: 0 }, count = new ThreadCount(4, () => ({ ...times }));
  /** How many threads each of some steps has, that follow each other and last so long. */
  const steps = (number: number, seconds: number, others: number) =>
    Array.from({ length: number }, () => {
      const threads = count.begin(times.elapsed);
      pass(seconds, others, true);
      count.end(times.elapsed);
      return threads;
    });
  assert.deepEqual(steps(10, 0.03, 0), Array(10).fill(4), "nobody is in the way");
  const busy = steps(20, 0.03, 1);
  assert.deepEqual([busy[0], busy.at(-1)], [4, 3], "one other program has a processor");
  assert.deepEqual(busy, busy.toSorted().reverse(), "which is seen once");
  assert.equal(steps(20, 0.03, 3.9).at(-1), 1, "others have nearly all of them: one thread has to do");
  pass(0.3, 4, false);
  assert.equal(steps(1, 0.03, 3)[0], 1, "what others do in a pause does not matter");
  pass(0.3, 1, false);
  assert.equal(steps(1, 0.03, 1)[0], 3, "but that two have gone");
  assert.equal(
    steps(20, 0.03, 0.4).at(-1),
    4,
    "they have gone, and what is left of them is less than half a processor",
  );
  pass(0.3, 4, false); // another program's turn
  assert.deepEqual(steps(20, 0.03, 0), Array(20).fill(4), "turns are in nobody's way");
  assert.deepEqual(steps(4, 0.3, 2), [4, 3, 2, 2], "the first look is at some of the quiet steps, too");
});

Deno.test("memory of more than two gigabytes can be seen as any type of numbers", () => {
  const bytes = 2 ** 31 + 64, memory = new HostMemory(bytes); // none of it is touched, so it takes none
  assert.deepEqual([memory.floats.length, memory.int8s.length], [bytes / 4, bytes]);
  memory.free();
});

Deno.test({
  name: "where OpenMP's library cannot be opened, int8 runs on TensorFlow, and it is said why",
  ignore: library === null,
  async fn() {
    const folder = await Deno.makeTempDir();
    await Deno.writeTextFile(`${folder}/libgomp.so.1`, ""); // found before the system's
    const mod = JSON.stringify(new URL("../lib/mod.ts", import.meta.url).href);
    const program = `
      const lines = [], log = (line) => lines.push(line), { useBackend } = await import(${mod});
      const { name } = await useBackend("auto", { dtype: "int8", log });
      console.log(JSON.stringify([name, lines]));`;
    const env = { LD_LIBRARY_PATH: folder }, args = ["eval", program];
    const { stdout } = await new Deno.Command(Deno.execPath(), { args, env }).output();
    const [name, [why]] = JSON.parse(new TextDecoder().decode(stdout));
    assert.equal(name, "tensorflow");
    await Deno.remove(folder, { recursive: true });
    assert.match(why, /^The onednn backend does not work here \(oneDNN needs libgomp\.so\.1, .* install the package/);
  },
});

Deno.test({
  name: "measuring gives positive roofs for every dtype, and leaves no tensors behind",
  ignore: library === null,
  async fn() {
    const backend = await useBackend("onednn"), before = tf.memory().numTensors;
    for (const dtype of backend.dtypes) {
      const { bandwidth, flops } = await measureRoofs(backend, { dtype });
      assert.ok(bandwidth > 1e8 && bandwidth < 1e14 && flops > 1e8 && flops < 1e16, `${dtype}: ${bandwidth}, ${flops}`);
    }
    assert.equal(tf.memory().numTensors, before);
  },
});

Deno.test({
  name: "a process that ends while oneDNN's threads wait for more work ends well",
  ignore: library === null,
  async fn() {
    const mod = JSON.stringify(new URL("../lib/mod.ts", import.meta.url).href);
    const program = `await (await import(${mod})).useBackend("onednn")`, codes: number[] = [];
    for (let i = 0; i < 6; i++) {
      codes.push((await new Deno.Command(Deno.execPath(), { args: ["eval", program] }).output()).code);
    }
    assert.deepEqual(codes, Array(6).fill(0));
  },
});
