/** Plans of how to spread batches over the processor: measured, kept for a while, doubted, and never in the way. */

import assert from "node:assert/strict";
import os from "node:os";
import { dirname, join } from "node:path";
import { useBackend } from "../lib/backend/select.ts";
import type { Backend, Parallelism } from "../lib/backend/types.ts";
import { calibrate, findBetterWay } from "../lib/bench/calibrate.ts";
import { watchProcessor } from "../lib/bench/machine_state.ts";
import { shareLeft } from "../lib/util/processor.ts";
import { storedPlan, storePlan } from "../lib/bench/stored_plan.ts";
import { ensurePlan } from "../lib/cli/plan.ts";
import { generateBatch } from "../lib/engine/generate.ts";
import { guessedParallelism, waysToSpread } from "../lib/engine/parallelism.ts";
import { Runner } from "../lib/engine/runner.ts";
import { loadGPT2 } from "../lib/pretrained.ts";
import { findLibtensorflow } from "../lib/tensorflow/install/locate.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const backend = await useBackend("tensorflow"), { threads } = backend, library = await findLibtensorflow();
const folder = await writeTinyModel({ seed: 1 });
const inputs = padBatch([[1, 2, 3], [4, 5]], { padTokenId: 0 });
const DAY = 24 * 60 * 60 * 1000;

/** A test with a cache folder of its own. */
function planTest(name: string, fn: (cache: string) => Promise<void>, { ignore = false } = {}) {
  Deno.test({
    name,
    ignore,
    async fn() {
      const before = Deno.env.get("OMNIBUS_CACHE"), cache = await Deno.makeTempDir();
      Deno.env.set("OMNIBUS_CACHE", cache);
      try {
        await fn(cache);
      } finally {
        if (before === undefined) Deno.env.delete("OMNIBUS_CACHE");
        else Deno.env.set("OMNIBUS_CACHE", before);
      }
    },
  });
}

/** The one file in which a plan is kept. */
async function planFile(cache: string): Promise<string> {
  const [{ name }, ...others] = await Array.fromAsync(Deno.readDir(join(cache, "plans")));
  assert.deepEqual(others, []);
  return join(cache, "plans", name);
}

/**
 * libtensorflow, but where `isSlow` says so, each run takes 50 ms longer: more than a busy machine keeps a tiny step waiting. So it
 * does not run ahead.
 */
function slowed(isSlow: (way: Parallelism) => boolean): Backend {
  const capture: Backend["capture"] = (...args) => {
    const captured = backend.capture!(...args);
    return {
      async run(inputs, way) {
        if (isSlow(way)) await new Promise((resolve) => setTimeout(resolve, 50));
        return await captured.run(inputs, way);
      },
      dispose: () => captured.dispose(),
    };
  };
  return Object.create(backend, { capture: { value: capture }, runsAhead: { value: undefined } });
}

/** As long as it lives, the system says that nobody else uses the processor, or that all others do. */
function processorIs(state: "idle" | "busy"): Disposable {
  const { cpus } = os;
  const times = () => ({ user: 0, nice: 0, sys: 0, irq: 0, idle: state === "idle" ? performance.now() : 0 });
  os.cpus = () => cpus().map((cpu) => ({ ...cpu, times: times() }));
  return { [Symbol.dispose]: () => void (os.cpus = cpus) };
}

planTest("calibration tries batch sizes and keeps what was best for this model", async () => {
  using model = await loadGPT2(folder, { backend });
  assert.equal(await storedPlan(model), null);
  const calibration = await calibrate(model, { batchSizes: [1, 4] }), { plan } = calibration;
  assert.deepEqual(plan.map(({ batchSize }) => batchSize), [1, 4]);
  for (const { batchSize, lanes, threads } of plan) {
    assert.ok(waysToSpread(backend.threads, batchSize).some((way) => way.lanes === lanes && way.threads === threads));
  }
  await storePlan(model, { ...calibration, doubt: null });
  using again = await loadGPT2(await writeTinyModel({ seed: 9 }), { backend });
  assert.deepEqual(Runner.of(again).plan, plan);
  using other = await loadGPT2(await writeTinyModel({ seed: 9, config: { n_layer: 1 } }), { backend });
  assert.deepEqual(Runner.of(other).plan, []);
});

planTest(
  "whatever stands in a plan's place, a model loads and generates, and follows only what is a plan",
  async (cache) => {
    using model = await loadGPT2(folder, { backend });
    const expected = await generateBatch(model, inputs, { maxTokens: 4 });
    const good = [{ batchSize: 1, lanes: 1, threads: 1 }];
    await storePlan(model, { plan: good, doubt: null });
    const file = await planFile(cache), stored = JSON.parse(await Deno.readTextFile(file));
    assert.deepEqual(await storedPlan(model), good, "the control");
    const entries = [
      ...[0, -1, 1.5, null, "1", 1e11].map((lanes) => ({ batchSize: 4, lanes, threads: 1 })),
      ...[0, -1, 0.5, null, "1", 1e11, threads + 1].map((threads) => ({ batchSize: 4, lanes: 1, threads })),
      ...[0, -1, 1.5, null, "4", {}].map((batchSize) => ({ batchSize, lanes: 1, threads })),
      { batchSize: 1, lanes: 2, threads: 1 },
      ...[null, 1, "plan", [], {}],
    ];
    const texts = [
      ...["", "{", "null", "[]", "1", '"x"', "\0\0\0", JSON.stringify({ plan: good })],
      ...[{}, null, "x", 1, [], { length: 1 }, ...entries.flatMap((entry) => [[entry], [...good, entry]])]
        .map((plan) => JSON.stringify({ ...stored, plan })),
      ...[undefined, null, "", "yesterday", {}].map((created) => JSON.stringify({ ...stored, created })),
      JSON.stringify({ ...stored, of: { ...stored.of, cpu: "another" } }),
    ];
    for (const text of texts) {
      await Deno.writeTextFile(file, text);
      using loaded = await loadGPT2(folder, { backend });
      assert.deepEqual(Runner.of(loaded).plan, [], text);
      assert.deepEqual(await generateBatch(loaded, inputs, { maxTokens: 4 }), expected, text);
    }
  },
);

planTest(
  "a plan is used for a month; for an hour, if it is doubtful; and not if it is from the future",
  async (cache) => {
    using model = await loadGPT2(folder, { backend });
    const plan = [{ batchSize: 1, lanes: 1, threads: 1 }], HOUR = DAY / 24;
    await storePlan(model, { plan, doubt: null });
    const file = await planFile(cache), stored = JSON.parse(await Deno.readTextFile(file));
    const found = async (age: number, doubt: string | null) => {
      const created = new Date(Date.now() - age).toISOString();
      await Deno.writeTextFile(file, JSON.stringify({ ...stored, created, doubt }));
      return await storedPlan(model) !== null;
    };
    for (
      const [age, sure, doubtful] of [[0, true, true], [0.9 * HOUR, true, true], [1.1 * HOUR, true, false]] as const
    ) {
      assert.deepEqual([await found(age, null), await found(age, "busy")], [sure, doubtful], `${age} ms`);
    }
    assert.deepEqual([await found(29 * DAY, null), await found(31 * DAY, null)], [true, false]);
    assert.equal(await found(-2 * HOUR, null), false);
  },
);

const few = threads < 2;

planTest("calibration never picks a way that is clearly slower", async () => {
  for (const slow of [{ lanes: 1, threads }, { lanes: 1, threads: 1 }]) {
    const isSlow = (way: Parallelism) => way.lanes === slow.lanes && way.threads === slow.threads;
    using model = await loadGPT2(folder, { backend: slowed(isSlow) });
    const { plan } = await calibrate(model, { batchSizes: [1, 4] });
    assert.deepEqual(plan.filter(isSlow), [], `${slow.threads} threads`);
  }
}, { ignore: few });

planTest("calibration keeps what is likely to be best unless another way is better in every round", async () => {
  const likely = guessedParallelism(backend, 4), name = (way: Parallelism) => `${way.lanes}×${way.threads}`;
  for (const roundsOfOthers of [[1], []]) { // in which they are the slow ones; round 0 does not count
    const turns = new Map<string, number>();
    let last: string | undefined;
    const isSlow = (way: Parallelism) => {
      const own = name(way), round = (turns.get(own) ?? -1) + (own === last ? 0 : 1);
      turns.set(last = own, round);
      return roundsOfOthers.includes(round) !== (own === name(likely));
    };
    using model = await loadGPT2(folder, { backend: slowed(isSlow) });
    const { plan: [way] } = await calibrate(model, { batchSizes: [4] });
    assert.equal(name(way) === name(likely), roundsOfOthers.length > 0, name(way));
  }
}, { ignore: few });

planTest("a sweep's plan that is clearly beaten is measured again, and said to be; one that is not stays", async () => {
  using _ = processorIs("idle");
  using model = await loadGPT2(folder, { backend: slowed(({ lanes, threads }) => lanes * threads === 1) });
  const log: string[] = [], stale = [{ batchSize: 1, lanes: 1, threads: 1 }, { batchSize: 8, lanes: 1, threads: 1 }];
  Runner.of(model).plan = stale;
  await ensurePlan(model, { log: (line) => log.push(line) });
  assert.match(
    log.join("\n"),
    /^The plan .* no longer fits.* At batch 1, 1×\d+ lanes × threads take \d+% of the time of the 1×1/,
  );
  assert.deepEqual(Runner.of(model).plan[0], { batchSize: 1, lanes: 1, threads });
  assert.deepEqual(await storedPlan(model), Runner.of(model).plan);

  const kept = [{ batchSize: 1, lanes: 1, threads }];
  Runner.of(model).plan = kept;
  assert.equal(await findBetterWay(model), null);
  await ensurePlan(model, { log: (line) => log.push(line) });
  assert.deepEqual([Runner.of(model).plan, log.length], [kept, 1]);
  await ensurePlan(model, { again: true, log: (line) => log.push(line) });
  assert.deepEqual([Runner.of(model).plan.length, log.length], [4, 1]);
}, { ignore: few });

planTest(
  "on a busy machine no plan is given up, and one that is measured is kept for an hour and said to be doubtful",
  async (cache) => {
    using _ = processorIs("busy");
    using model = await loadGPT2(folder, { backend: slowed(({ lanes, threads }) => lanes * threads === 1) });
    const log: string[] = [], stale = [{ batchSize: 1, lanes: 1, threads: 1 }];
    Runner.of(model).plan = stale;
    await ensurePlan(model, { log: (line) => log.push(line) });
    assert.deepEqual([Runner.of(model).plan, log], [stale, []]);
    Runner.of(model).plan = [];
    await ensurePlan(model, { log: (line) => log.push(line) });
    assert.equal(log.length, 1);
    assert.match(log[0], /kept for an hour only\. Other programs were using the processor: \d+% of it was left/);
    const file = await planFile(cache), stored = JSON.parse(await Deno.readTextFile(file));
    assert.deepEqual(await storedPlan(model), Runner.of(model).plan);
    await Deno.writeTextFile(file, JSON.stringify({ ...stored, created: new Date(Date.now() - DAY) }));
    assert.equal(await storedPlan(model), null);
  },
  { ignore: few },
);

planTest("a plan that cannot be kept is used all the same, after one line that says why", async (cache) => {
  using _ = processorIs("idle");
  await Deno.writeTextFile(join(cache, "plans"), "in the way");
  using model = await loadGPT2(folder, { backend });
  const log: string[] = [];
  await ensurePlan(model, { log: (line) => log.push(line) });
  assert.deepEqual(Runner.of(model).plan.map(({ batchSize }) => batchSize), [1, 4, 16, 64]);
  assert.equal(log.length, 1);
  assert.match(log[0], /cannot be kept, and will be measured again: .*plans/);
}, { ignore: few });

planTest("`sweep` goes on when its plan cannot be kept", async (cache) => {
  await Deno.writeTextFile(join(cache, "plans"), "in the way");
  const json = join(cache, "sweep.json"), output = ["--json", json, "--chart", join(cache, "sweep.svg")];
  const sizes = ["--batch-sizes", "1,2", "--max-tokens", "2", "--repeats", "1"];
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "lib/cli/sweep.ts", "--model", folder, "--backend", "tensorflow", ...sizes, ...output],
    cwd: new URL("..", import.meta.url),
    env: { NO_COLOR: "1", LIBTENSORFLOW_DIR: dirname(library!.main) },
  }).output();
  const said = new TextDecoder().decode(stderr);
  assert.equal(code, 0, said);
  assert.equal(said.match(/cannot be kept/g)?.length, 1, said);
  assert.equal(JSON.parse(await Deno.readTextFile(json)).points.length, 2);
}, { ignore: few });

Deno.test("what others left of the processor is what was idle or used by this process, of the cores that it may use", () => {
  const at = (elapsed: number, idle: number, own: number) => ({ elapsed, idle, own });
  const cases: [idle: number, own: number, cores: number, share: number][] = [
    [0, 20, 2, 1], //   all of it used here
    [16, 4, 2, 1], //   the rest idle
    [4, 6, 2, 0.5], //  others had the other half
    [0, 5, 2, 0.25],
    [30, 20, 2, 1], //  two of many cores: others are busy on those that are none of ours
    [0, 10, 2, 0.5], // … but no core was left
  ];
  for (const [idle, own, cores, share] of cases) {
    assert.equal(shareLeft(at(100, 7, 3), at(110, 7 + idle, 3 + own), cores), share, `${idle} ${own} ${cores}`);
  }
});

Deno.test("programs that keep every core busy are noticed", async () => {
  const loops = Array.from(
    { length: 2 * navigator.hardwareConcurrency },
    () => new Deno.Command(Deno.execPath(), { args: ["eval", "console.log(1); for (;;);"], stdout: "piped" }).spawn(),
  );
  try {
    for (const { stdout } of loops) await stdout.getReader().read(); // it runs
    const busy = watchProcessor(), until = performance.now() + 1000;
    while (performance.now() < until); // at work, as a measurement is
    assert.match(busy() ?? "not noticed", /^Other programs were using the processor: \d+% of it was left for this\.$/);
  } finally {
    for (const loop of loops) loop.kill("SIGKILL");
    for (const loop of loops) await loop.status;
  }
});
