/** The first use of a backend, by several callers at once: each case is a process of its own, as it can happen once in one. */

import assert from "node:assert/strict";
import { ensureOnednn } from "../lib/onednn/install.ts";
import { openGpu } from "../lib/webgpu/device.ts";

/** What the first int8 model on a machine says, whoever else loads it meanwhile. */
const MEASURED_ONCE = /^Measured what goes into the int8 layers, once for these weights: .*\n/;

/** Runs a program that may name what `lib/mod.ts` and `openTensorflow` export; gives the JSON that it prints. */
async function fresh(program: string, env: Record<string, string> = {}): Promise<unknown> {
  const file = (path: string) => JSON.stringify(new URL(`../lib/${path}`, import.meta.url).href);
  const source = `
    import * as tf from "@tensorflow/tfjs";
    import * as lib from ${file("mod.ts")};
    import { openTensorflow } from ${file("tensorflow/tfjs/backend.ts")};
    const outcomeOf = (promise) => promise.then(() => "done", (error) => error.name + ": " + error.message);
    ${program}`;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", source],
    cwd: new URL("..", import.meta.url),
    env: { NO_COLOR: "1", ...env },
  }).output();
  const [said, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert.deepEqual([code, errors.replace(MEASURED_ONCE, "")], [0, ""], said);
  return JSON.parse(said);
}

const gpu = await openGpu().then(() => true, () => false);
const onednn = await ensureOnednn().then(() => true, () => false);
const names = ["tensorflow", ...onednn ? ["onednn"] : [], "wasm", "cpu", ...gpu ? ["webgpu"] : []];

Deno.test("models of every dtype that are loaded at once, as the first thing in a process, answer as one loaded alone does", async () => {
  const answers = await fresh(`
    const load = (dtype) => lib.AutoModelForCausalLM.fromPretrained("models/small", { dtype });
    const models = await Promise.all(["float32", "int8", "bfloat16", "int8", "float32"].map(load));
    const answers = [];
    for (const model of [...models, ...await Promise.all(["float32", "int8", "bfloat16"].map(load))]) {
      const inputs = { inputIds: [[1, 2, 3]], attentionMask: [[1, 1, 1]] };
      answers.push([model.dtype, (await lib.generateBatch(model, inputs, { maxTokens: 4 }))[0].tokens]);
    }
    console.log(JSON.stringify(answers));`) as [string, number[]][];
  assert.equal(answers.length, 8);
  const alone = new Map(answers.slice(5));
  for (const [dtype, tokens] of answers) assert.deepEqual(tokens, alone.get(dtype), dtype);
});

Deno.test("a backend is opened once by all who ask for it at once, whatever it is called by", async () => {
  assert.equal(
    await fresh(`
      const opened = await Promise.all([openTensorflow(), openTensorflow(), openTensorflow()]);
      console.log(opened.every((one) => one === opened[0]));`),
    true,
  );
  for (const name of [...names, "auto"]) {
    const same = await fresh(`
      const started = await Promise.all(["${name}", "auto", "${name}"].map((name) => lib.useBackend(name)));
      console.log(started[0] === started[2] && (started[0] === started[1]) === (started[0].name === "tensorflow"));`);
    assert.equal(same, true, name);
  }
});

Deno.test("where libtensorflow does not work, it is tried once, and the next backend runs on", async () => {
  const { name, lines } = await fresh(`
    Deno.dlopen = () => { throw new Error("no libraries here"); };
    const lines = [], { name } = await lib.useBackend("auto", { log: (line) => lines.push(line) });
    console.log(JSON.stringify({ name, lines }));`) as { name: string; lines: string[] };
  assert.ok(name === "webgpu" || name === "wasm", name);
  assert.match(lines[0], /^The tensorflow backend does not work here \(no libraries here\)\. Trying the next one\.$/);
  assert.equal(lines.filter((line) => line.includes("no libraries here")).length, 1);
});

Deno.test("all backends started at once come up with the dtypes that each has alone", async () => {
  const program = (names: string[]) => `
    const started = await Promise.all(${JSON.stringify(names)}.map((name) => lib.useBackend(name)));
    const one = tf.scalar(1); // whichever is current, it works
    console.log(JSON.stringify([...started.map(({ name, dtypes }) => [name, dtypes]), (await one.data())[0]]));`;
  const alone = [];
  for (const name of names) alone.push((await fresh(program([name])) as unknown[])[0]);
  for (const order of [names, names.toReversed()]) {
    const together = await fresh(program(order)) as unknown[];
    assert.deepEqual(together.slice(0, -1).sort(), alone.toSorted(), `${order}`);
    assert.equal(together.at(-1), 1);
  }
});

Deno.test("while libtensorflow starts, others may change tfjs's current backend as they like: no kernel is missed for it", async () => {
  const program = (meanwhile: string) => `
    await lib.useBackend("cpu");
    let starting = true;
    const started = lib.useBackend("tensorflow").finally(() => starting = false);
    for (; starting; await new Promise((resolve) => setTimeout(resolve))) { ${meanwhile} }
    const { description, dtypes } = await started;
    console.log(JSON.stringify([description, dtypes]));`;
  assert.deepEqual(await fresh(program('tf.setBackend("cpu")')), await fresh(program("")));
});

Deno.test("after a first try that failed, for all who took part in it, the next ones at once succeed together", async () => {
  const folder = await Deno.makeTempDir();
  const [failures, same, dtypes] = await fresh(
    `
    const failures = await Promise.all([1, 2, 3].map(() => outcomeOf(lib.useBackend("tensorflow"))));
    failures.push(await outcomeOf(openTensorflow()));
    Deno.env.delete("LIBTENSORFLOW_DIR");
    const started = await Promise.all([1, 2, 3].map(() => lib.useBackend("tensorflow")));
    const opened = await Promise.all([1, 2].map(() => openTensorflow()));
    const same = started.every((one) => one === started[0]) && opened[0] === opened[1];
    console.log(JSON.stringify([failures, same, started[0].dtypes]));`,
    { LIBTENSORFLOW_DIR: folder },
  ) as [string[], boolean, string[]];
  for (const failure of failures) assert.match(failure, /^RangeError: LIBTENSORFLOW_DIR is .*, which does not hold/);
  assert.equal(failures.length, 4);
  assert.equal(same, true);
  assert.deepEqual(dtypes, await fresh(`console.log(JSON.stringify((await lib.useBackend("tensorflow")).dtypes))`));
});

Deno.test("who asks for other threads than a backend is being started with is told so", async () => {
  for (const name of names.filter((name) => ["tensorflow", "onednn"].includes(name))) {
    const outcomes = await fresh(`
      const started = [1, undefined, 2].map((threads) => lib.useBackend("${name}", { threads }));
      console.log(JSON.stringify(await Promise.all(started.map(outcomeOf))));`) as string[];
    assert.deepEqual(outcomes.slice(0, 2), ["done", "done"], name);
    assert.match(
      outcomes[2],
      /^RangeError: Cannot change to 2 threads: tensorflow runs on 1 until the process ends\.$/,
    );
  }
});

Deno.test("threads that there are no cores for, or that are no numbers, are refused on every backend, and nothing is opened", async () => {
  const cores = navigator.hardwareConcurrency;
  const { outcomes, opened } = await fresh(`
    import { useTensorflow } from ${JSON.stringify(new URL("../lib/tensorflow/mod.ts", import.meta.url).href)};
    const outcomes = [];
    for (const threads of [0, -1, 1.5, NaN, "1", ${cores + 1}, 5000, 1e11]) {
      for (const name of ["auto", ...lib.BACKENDS]) outcomes.push(await outcomeOf(lib.useBackend(name, { threads })));
      outcomes.push(await outcomeOf(useTensorflow({ threads })));
    }
    console.log(JSON.stringify({ outcomes, opened: Object.keys(tf.engine().registryFactory) }));`) as {
    outcomes: string[];
    opened: string[];
  };
  assert.equal(outcomes.length, 8 * 7);
  const message = new RegExp(
    `^RangeError: Cannot run on .* threads: it must be a whole number from 1 to ${cores}, the`,
  );
  for (const outcome of outcomes) assert.match(outcome, message);
  assert.ok(!opened.includes("tensorflow") && !opened.includes("wasm"), `${opened}`);
});

Deno.test("while a backend starts, the one before it goes on; one that cannot start changes nothing, and may be tried again", async () => {
  const { sums, outcome, current, again } = await fresh(`
    const { instantiate } = WebAssembly;
    WebAssembly.instantiate = () => Promise.reject(new Error("no room"));
    console.error = console.warn = () => {}; // Emscripten's own words
    await lib.useBackend("cpu");
    const failing = outcomeOf(lib.useBackend("wasm"));
    const sums = [];
    let starting = true;
    failing.then(() => starting = false);
    for (; starting; await new Promise((resolve) => setTimeout(resolve))) sums.push(tf.add(1, 1).dataSync()[0]);
    const outcome = await failing, current = tf.getBackend();
    WebAssembly.instantiate = instantiate;
    const again = await outcomeOf(lib.useBackend("wasm"));
    console.log(JSON.stringify({ sums, outcome, current, again: [again, tf.add(1, 1).dataSync()[0]] }));`) as Record<
    string,
    unknown
  >;
  assert.deepEqual(new Set(sums as number[]), new Set([2]));
  assert.equal(outcome, "Error: tfjs's wasm backend cannot be started");
  assert.deepEqual([current, again], ["cpu", ["done", 2]]);
});
