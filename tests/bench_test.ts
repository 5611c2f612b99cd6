/** The side-by-side bench without the others' downloads: stand-ins generate, and small workers speak the protocol. */

import assert from "node:assert/strict";
import { runs } from "./_support/programs.ts";
import { pathToFileURL } from "node:url";
import { startAll } from "../lib/bench/peers/catalog.ts";
import { type MachineState, stateLines, watchMachine } from "../lib/bench/machine_state.ts";
import {
  compare,
  CONTROL,
  doubts,
  geometricMean,
  type Point,
  type Ratio,
  ratiosByRound,
  ratiosOf,
  relativeError,
  type Standing,
} from "../lib/bench/peers/compare.ts";
import type { Contestant } from "../lib/bench/peers/rounds.ts";
import { refuseCuda } from "../lib/bench/peers/environment.ts";
import { Peer } from "../lib/bench/peers/protocol.ts";
import { absences, tables } from "../lib/bench/peers/report.ts";
import { severalRuns, type StoredRun } from "../lib/bench/peers/several_runs.ts";

const root = new URL("..", import.meta.url);

Deno.test("the geometric mean of a ratio and its inverse is one", () => {
  assert.equal(geometricMean([4, 1 / 4]), 1);
  assert.ok(Math.abs(geometricMean([1, 10, 100]) - 10) < 1e-12);
  assert.ok(Number.isNaN(geometricMean([])));
});

Deno.test("an error of the logits is relative, and what is added to all of them is none", () => {
  assert.equal(relativeError([6, 7, 8], [1, 2, 3]), 0);
  assert.ok(Math.abs(relativeError([1.1, 2.2, 3.3], [1, 2, 3]) - 0.1) < 1e-12);
});

Deno.test("ratios are taken within a precision, and the best peer is another one at each batch size", () => {
  const standings = [
    standing("omnibus", "float32", [20, 300]),
    standing("a", "float32", [40, 100]),
    standing("b", "float32", [10, 150]),
    standing("omnibus", "int8", [50, 50]),
    standing("a", "int8", [25, 200]),
    standing("omnibus", "bfloat16", [1, 1]),
  ];
  const ratios = ratiosOf(standings, "omnibus", (point) => point.throughput);
  assert.deepEqual(
    ratios.map(({ dtype, against, ratios, least }) => [dtype, against, ratios, least]),
    [
      ["float32", "a", [0.5, 3], 0.5],
      ["float32", "b", [2, 2], 2],
      ["float32", "best", [0.5, 2], 0.5],
      ["int8", "a", [2, 0.25], 0.25],
      ["int8", "best", [2, 0.25], 0.25],
    ],
  );
  assert.equal(ratios[2].geometricMean, 1);
});

Deno.test("ratios have a spread over the rounds, and the control is not a peer", () => {
  const times = (name: string, repeats: number[][]) => {
    const own = standing(name, "float32", repeats.map(() => 10));
    return { ...own, points: own.points.map((point, i) => ({ ...point, repeats: repeats[i] })) };
  };
  const standings = [
    times("omnibus", [[1, 2], [1, 1]]),
    times("a", [[2, 2], [2, 1]]),
    times(CONTROL, [[1, 4], [1, 1]]),
  ];
  const [own, a, again] = standings;
  assert.deepEqual(ratiosByRound(own, a).map((ratio) => Number(ratio.toFixed(6))), [2, 1]);
  assert.deepEqual(ratiosByRound(own, again).map((ratio) => Number(ratio.toFixed(6))), [1, 1.414214]);
  const against = (group: Standing[]) =>
    ratiosOf(group, "omnibus", ({ throughput }) => throughput).map((r) => r.against);
  assert.deepEqual(against(standings), ["a", CONTROL, "best"]);
  assert.deepEqual(against([own, again]), [CONTROL], "nobody is the best of none");
  const text = tables(standings);
  assert.match(text, /lowest round +1\.00x +1\.00x/);
  assert.match(text, /highest round +2\.00x +1\.41x/);
});

Deno.test("of several runs each number is the median, ratios are shown for each, and runs that differ in kind are refused", () => {
  const run = (own: number[], others: number[]): StoredRun => ({
    workload: "static",
    created: "now",
    model: "M",
    threads: 2,
    host: { cpu: "C" },
    promptTokens: 7,
    maxTokens: 10,
    contestants: [standing("omnibus", "int8", own), standing("a", "int8", others)],
    machine: [{ bandwidth: own[0], othersShare: 0, stolenShare: 0 }],
  });
  const { text, result } = severalRuns([run([10, 90], [20, 20]), run([30, 50], [20, 20]), run([20, 70], [80, 20])]);
  const [own, a] = result.contestants as Standing[];
  assert.deepEqual([own, a].map(({ points }) => points.map(({ throughput }) => throughput)), [[20, 70], [20, 20]]);
  assert.equal(own.points[0].repeats.length, 3 * run([1], [1]).contestants[0].points[0].repeats.length);
  const all = [Math.sqrt(1 * 3.5), Math.sqrt(0.5 * 4.5), Math.sqrt(1.5 * 2.5), Math.sqrt(0.25 * 3.5)]; // medians, runs 1 to 3
  const { "end to end": [stored] } = result.ratios as Record<string, Ratio[]>;
  assert.deepEqual([stored.against, stored.ratios, stored.geometricMean], ["a", [1, 3.5], all[0]]);
  assert.deepEqual((result.machine as MachineState[]).map(({ bandwidth }) => bandwidth), [10, 30, 20]);
  const line = [...all, 1, 0.5, 1.5, 0.25].map((ratio) => `${ratio.toFixed(2)}x`);
  assert.match(text, new RegExp(`omnibus / a, int8 +${line.join(" +")}\n`));
  assert.throws(() => severalRuns([run([1], [1]), run([1, 2], [1, 2])]), /^RangeError: Run 2 has other contestants/);
});

Deno.test("the machine's state is looked at around each round, and said in a line", async () => {
  const look = watchMachine(), states = [await look(), await look()];
  for (const { bandwidth, othersShare, stolenShare } of states) {
    assert.ok(bandwidth > 1e7 && bandwidth < 1e13, `${bandwidth}`);
    for (const share of [othersShare, stolenShare ?? 0]) assert.ok(share >= 0 && share <= 1, `${share}`);
  }
  assert.match(
    stateLines([...states, { bandwidth: 2e9, othersShare: 0.5, stolenShare: 0.25 }]),
    /^Before round 0 one thread .*\nBefore round 1 .*\nAt the end .* 2\.0 GB\/s, others use 50\.0% .*, 25\.0% of the last/,
  );
  let rounds = 0;
  await compare([contestant("a", {})], {
    ...{ ids: [1], batchSizes: [1], maxTokens: 1, repeats: 3, pauseSeconds: 0 },
    onRound: () => Promise.resolve(void rounds++),
  });
  assert.equal(rounds, 5);
});

Deno.test("everyone runs every size once a round, in an order that is drawn, and the first round does not count", async () => {
  const calls: string[] = [];
  const contestants = ["a", "b"].map((name) => {
    let run = 0;
    return contestant(name, {
      onRun: (batchSize) => calls.push(`${name}${batchSize}`),
      seconds: () => ++run <= 2 ? 100 : run, // 100 in the first round; 3 and 4, then 5 and 6 in those that count
    });
  });
  const standings = await compare(contestants, {
    ids: [1],
    batchSizes: [2, 8],
    maxTokens: 10,
    repeats: 2,
    pauseSeconds: 0,
  });
  const turns = Array.from({ length: 6 }, (_, i) => calls.slice(2 * i, 2 * i + 2));
  const sorted = turns.map((turn) => turn.toSorted().join(" "));
  assert.deepEqual(sorted, ["a2 b2", "a8 b8", "a2 b2", "a8 b8", "a2 b2", "a8 b8"]);
  assert.deepEqual(new Set(turns.map(([first]) => first[0])), new Set(["a", "b"]));
  const [two, eight] = standings[1].points;
  assert.deepEqual(two.repeats, [3 + 1, 5 + 1]);
  assert.deepEqual([two.totalSeconds, two.prefillSeconds, two.decodeSeconds], [5, 1, 4]);
  assert.deepEqual([two.throughput, two.decodeThroughput], [2 * 10 / 5, 2 * 9 / 4]);
  assert.deepEqual(eight.repeats, [4 + 1, 6 + 1]);
});

Deno.test("the right answers raise no doubt, and another model, another answer and odd rows do", async () => {
  const options = { ids: [1], batchSizes: [3], maxTokens: 2, repeats: 1, pauseSeconds: 0 };
  const doubtsAbout = async (contestants: Contestant[]) => doubts(await compare(contestants, options));
  const right = contestant("right", {});
  assert.deepEqual(await doubtsAbout([right, contestant("close", { logits: [1.0001, 2, 3] })]), []);
  assert.deepEqual(
    await doubtsAbout([right, contestant("rough", { dtype: "int8", logits: [1, 2.2, 3], row: [7, 9] })]),
    [],
  );
  assert.match(
    `${await doubtsAbout([right, contestant("wrong", { logits: [1, 3, 2] })])}`,
    /^wrong float32 has other logits/,
  );
  assert.match(`${await doubtsAbout([right, contestant("late", { row: [7, 9] })])}`, /^late float32 .* other tokens/);
  assert.match(`${await doubtsAbout([right, contestant("odd", { lastRow: [8, 8] })])}`, /^odd float32 gives some rows/);
  await assert.rejects(doubtsAbout([contestant("short", { row: [7] })]), /3 rows of 1 tokens where 3 rows of 2/);
});

Deno.test("a worker in TypeScript answers over its pipes, long lines included, and ends with its input", async () => {
  const worker = await script(`
    import { serve } from ${JSON.stringify(new URL("../lib/bench/peers/protocol.ts", import.meta.url).href)};
    await serve({ about: "a stand-in for " + JSON.parse(Deno.args[0]).dtype, versions: { stand: "1" } }, {
      generate: ({ ids, batchSize, maxTokens }) => Promise.resolve({
        prefillSeconds: 1, decodeSeconds: 2, tokens: Array(batchSize).fill(Array(maxTokens).fill(ids.at(-1))),
      }),
      logits: (ids) => Promise.resolve(Array(50257).fill(ids[0] + 0.5)),
    });
  `);
  await using started = await startAll(
    [{ name: "stand-in", dtypes: ["int8"], script: worker, packages: [] }],
    ["int8"],
    OPTIONS,
  );
  assert.deepEqual(started.missing, []);
  const [{ generator: peer }] = started.contestants;
  assert.deepEqual(peer.introduction, { about: "a stand-in for int8", versions: { stand: "1" } });
  for (const batchSize of [1, 3]) {
    const { tokens } = await peer.generate({ ids: [4, 5], batchSize, maxTokens: 2 });
    assert.deepEqual(tokens, Array(batchSize).fill([5, 5]));
  }
  const logits = await peer.logits([7]);
  assert.deepEqual([logits.length, logits[50256]], [50257, 7.5]);
});

const python = await runs("python3", "-V");

Deno.test({
  name: "a worker in Python answers as one in TypeScript does, whatever its libraries print",
  ignore: !python,
  async fn() {
    const code = `
import sys
sys.path.insert(0, "lib/bench/peers")
from worker import serve
class StandIn:
    about, versions = "a stand-in", {"stand": "1"}
    def __init__(self, model, cache, dtype, threads):
        print("what a library prints", flush=True)
    def generate(self, ids, batch_size, max_tokens):
        return 1, 2, [ids[-1:] * max_tokens] * batch_size
    def serve(self, requests, seats, batching):
        return [[1.5] * count for _, count in requests], [prompt[:1] * seats for prompt, _ in requests]
    def logits(self, ids):
        return [ids[0] + 0.5]
serve(StandIn)`;
    const argument = JSON.stringify({ model: "", cache: "", dtype: "int8", threads: 2 });
    await using peer = await Peer.start(["python3", "-c", code, argument], { cwd: root });
    assert.deepEqual(peer.introduction, { about: "a stand-in", versions: { stand: "1" } });
    const work = { ids: [4, 5], batchSize: 2, maxTokens: 3 };
    const tokens = [[5, 5, 5], [5, 5, 5]];
    assert.deepEqual(await peer.generate(work), { prefillSeconds: 1, decodeSeconds: 2, tokens });
    const requests = [{ prompt: [6, 7], maxTokens: 2, arrivalSeconds: 0 }];
    assert.deepEqual(await peer.serve({ batching: "static", seats: 3, requests }), {
      seconds: [[1.5, 1.5]],
      tokens: [[6, 6, 6]],
    });
    assert.deepEqual(await peer.logits([7]), [7.5]);
  },
});

Deno.test("who cannot be started is named, with the last line of its stderr, and the others go on", async () => {
  const bad = await script(`console.error("First this.\\nIt wants more memory."); Deno.exit(3);`);
  const silent = await script("Deno.exit(3);");
  const candidates = [bad, silent].map((script, i) => (
    { name: ["big", "silent"][i], dtypes: ["float32", "int8"] as const, script, packages: [] }
  ));
  await using started = await startAll(candidates, ["int8"], OPTIONS);
  assert.deepEqual(started.contestants, []);
  assert.deepEqual(absences(started.missing), [
    "Missing: big int8. It wants more memory.",
    "Missing: silent int8. It ended with code 3 and without a word.",
  ]);
});

Deno.test("who ends in the middle of the work ends the comparison with the reason", async () => {
  const worker = await script(`
    console.log(JSON.stringify({ about: "", versions: {} }));
    await Deno.stdin.read(new Uint8Array(1000));
    console.error("Out of memory.");
  `);
  await using generator = await Peer.start([Deno.execPath(), "run", "-A", worker]);
  generator.logits = () => Promise.resolve([1, 2]);
  await assert.rejects(
    compare([{ name: "big", dtype: "int8", generator }], { ids: [1], batchSizes: [64], maxTokens: 1, repeats: 1 }),
    /big int8 failed at batch 64 \(Out of memory\.\)/,
  );
});

Deno.test("PyTorch for NVIDIA GPUs is not installed, and the one for CPUs is", () => {
  const report = (...names: string[]) => ({ install: names.map((name) => ({ metadata: { name } })) });
  refuseCuda(report("torch", "numpy"));
  assert.throws(() => refuseCuda(report("torch", "nvidia-cublas", "triton")), /2 packages such as nvidia-cublas/);
});

Deno.test("a table has everyone's rates, the ratio to the best, and the ratios to each", () => {
  const standings = [
    standing("omnibus", "float32", [20, 300]),
    standing("a", "float32", [40, 100]),
    standing("b", "float32", [10, 150]),
  ];
  const [endToEnd] = tables(standings).split("\n\nfloat32, tokens per second decode only");
  const lines = endToEnd.split("\n").filter((line) => !line.startsWith("─"));
  assert.deepEqual(lines.map((line) => line.trim().replace(/ {2,}/g, " | ")), [
    "float32, tokens per second end to end",
    "",
    "batch | omnibus | a | b | omnibus/best",
    "1 | 20.0 ±50% | 40.0 ±50% | 10.0 ±50% | 0.50x",
    "8 | 300.0 ±50% | 100.0 ±50% | 150.0 ±50% | 2.00x",
    "geo. mean | 1.22x | 2.00x | 1.00x",
    "least | 0.50x | 2.00x | 0.50x",
    "lowest round | 1.00x | 1.00x",
    "highest round | 1.00x | 1.00x",
  ]);
});

Deno.test("bench refuses peers, precisions and charts that there are not", async () => {
  for (
    const [args, message] of [
      [["--peers", "omnibus,tgi"], /^bench: --peers has no "tgi": use omnibus, transformers/],
      [["--dtypes", "int4"], /^bench: --dtypes has no "int4": use float32/],
      [["--batch-sizes", "1,x"], /^bench: --batch-sizes must be a whole number/],
      [["--chart", "bench.png"], /^bench: --chart must end in \.svg/],
    ] as const
  ) {
    const command = new Deno.Command(Deno.execPath(), { args: ["run", "-A", "lib/cli/bench.ts", ...args], cwd: root });
    const { code, stderr } = await command.output();
    assert.equal(code, 2);
    assert.match(new TextDecoder().decode(stderr), message);
  }
});

const OPTIONS = { model: "", cache: "", backend: "auto" as const, threads: 2, log() {} };

/** A worker's file. */
async function script(text: string): Promise<string> {
  const path = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(path, text);
  return pathToFileURL(path).href;
}

/** A result with rates at batch 1 and 8. */
function standing(name: string, dtype: Standing["dtype"], rates: number[]): Standing {
  const points = rates.map((throughput, i): Point => {
    const times = { totalSeconds: 2, prefillSeconds: 1, decodeSeconds: 1, repeats: [1, 2, 3] };
    return { batchSize: [1, 8][i], throughput, decodeThroughput: throughput, ...times };
  });
  return { name, dtype, points, tokens: [], steady: true, logitsError: 0, sameTokens: true };
}

/** One who gives every row the same answer, without computing anything. */
function contestant(name: string, options: {
  dtype?: Standing["dtype"];
  logits?: number[];
  row?: number[];
  lastRow?: number[];
  seconds?: () => number;
  onRun?: (batchSize: number) => void;
}): Contestant {
  const { dtype = "float32", logits = [1, 2, 3], lastRow, seconds = () => 1, onRun } = options;
  return {
    name,
    dtype,
    generator: {
      logits: () => Promise.resolve(logits),
      generate({ batchSize, maxTokens }) {
        onRun?.(batchSize);
        const row = options.row ?? Array(maxTokens).fill(7);
        const tokens = [...Array(batchSize - 1).fill(row), lastRow ?? row];
        return Promise.resolve({ prefillSeconds: 1, decodeSeconds: seconds(), tokens });
      },
    },
  };
}
