/** `deno task bench`: Omnibus and the engines that people would pick instead, side by side on one machine. */

import { cpus } from "node:os";
import { basename, join } from "node:path";
import { arrivals } from "../bench/peers/arrivals.ts";
import { CANDIDATES, startAll } from "../bench/peers/catalog.ts";
import { BENCH_FOLDER, missingPackages } from "../bench/peers/environment.ts";
import type { Findings, Workload } from "../bench/peers/findings.ts";
import { mixed } from "../bench/peers/mixed.ts";
import { benchModel } from "../bench/peers/model.ts";
import { absences } from "../bench/peers/report.ts";
import { severalRuns, type StoredRun } from "../bench/peers/several_runs.ts";
import { staticBatches } from "../bench/peers/static.ts";
import { renderSvg } from "../chart.ts";
import { DTYPES } from "../backend/ops.ts";
import { BACKENDS } from "../backend/types.ts";
import { readConfig } from "../gpt2/config_file.ts";
import { run, UsageError, wholeNumber } from "./command.ts";
import { output, pictureOutput } from "./output.ts";
import { formatBytes } from "../util/format.ts";
import { withProgress } from "../util/progress.ts";

const WORKLOADS: Record<string, Workload> = { static: staticBatches, mixed, arrivals };

await run({
  name: "bench",
  summary: "Compares Omnibus with other engines: the same weights, prompts and threads, run in turns.",
  flags: {
    workload: {
      type: "string",
      value: "NAME",
      help:
        "static (default): one prompt, batch after batch; mixed: requests of all lengths, static against continuous " +
        "batching; arrivals: requests that come at random, Omnibus alone",
    },
    peers: {
      type: "string",
      value: "a,b,…",
      help: `of ${CANDIDATES.map(({ name }) => name).join(", ")} (default all that can do the workload)`,
    },
    backend: { type: "string", value: "NAME", help: `where Omnibus runs: auto (default), ${BACKENDS.join(", ")}` },
    dtypes: { type: "string", value: "a,b,…", help: `of ${DTYPES.join(", ")} (default all)` },
    "batch-sizes": { type: "string", value: "1,2,…", help: "static: rows (default 1,2,4,8,16,32,64,128)" },
    "max-tokens": { type: "string", value: "N", help: "static: new tokens of every row (default 10)" },
    requests: {
      type: "string",
      value: "N",
      help: "mixed: requests (default 256); arrivals: at each load (default 300)",
    },
    repeats: {
      type: "string",
      value: "N",
      help: "static, mixed: rounds that count, after one that does not (default 5 and 1)",
    },
    "median-of": {
      type: "string",
      value: "a.json,b.json,…",
      help: "static: measures nothing, and reports the medians of these results of earlier runs",
    },
    json: {
      type: "string",
      value: "FILE",
      help: "where the results go (default results/bench.json, bench-mixed.json, …)",
    },
    chart: { type: "string", value: "FILE.svg", help: "where the chart goes (default results/bench.svg, …)" },
  },
}, async (flags) => {
  const [name] = chosen("workload", flags.workload ?? "static", Object.keys(WORKLOADS)), workload = WORKLOADS[name];
  const names = chosen("peers", flags.peers, workload.peers);
  const [backend] = chosen("backend", flags.backend ?? "auto", ["auto", ...BACKENDS]);
  const dtypes = chosen("dtypes", flags.dtypes, DTYPES);
  const batchSizes = (flags["batch-sizes"] ?? "1,2,4,8,16,32,64,128").split(",")
    .map((size) => wholeNumber(size, "batch-sizes", 1));
  const maxTokens = wholeNumber(flags["max-tokens"], "max-tokens", 10);
  const repeats = wholeNumber(flags.repeats, "repeats", workload.repeats);
  const requests = wholeNumber(flags.requests, "requests", workload.requests);
  const file = name === "static" ? "bench" : `bench-${name}`;
  const writeChart = await pictureOutput("chart", flags.chart, `${file}.svg`);
  const writeJson = await output("json", flags.json, `${file}.json`);
  const report = async ({ text, result, chart }: Findings) => {
    console.log(text); // first: nothing is lost where a file cannot be written
    const json = await writeJson(JSON.stringify(result, null, 2) + "\n");
    console.log(`\nResults: ${json}\nChart:   ${await writeChart(await renderSvg(chart))}`);
  };
  const earlier = flags["median-of"]?.split(",");
  if (earlier) return await report(severalRuns(await Promise.all(earlier.map(storedRun))));

  const candidates = CANDIDATES.filter(({ name }) => names.includes(name));
  const packages = await missingPackages(candidates.flatMap((candidate) => candidate.packages));
  const threads = navigator.hardwareConcurrency;
  const host = { cpu: cpus()[0]?.model.trim() ?? "unknown", cores: threads, os: Deno.build.os, arch: Deno.build.arch };

  if (packages.length) {
    const sum = packages.reduce((total, { bytes }) => total + bytes, 0);
    console.error(`This installs into ${BENCH_FOLDER}, once; it downloads about ${formatBytes(sum)}:`);
    for (const { bytes, python = ["llama.cpp's binaries"] } of packages) {
      console.error(`  ${formatBytes(bytes).padStart(6)}  ${python.join(", ")}`);
    }
  }
  const model = await benchModel(BENCH_FOLDER);
  const title = model.random ? "GPT-2 124M with random weights" : "GPT-2 124M";
  const cache = join(BENCH_FOLDER, "converted", basename(model.path));
  await using peers = await startAll(candidates, dtypes, {
    ...{ model: model.path, cache, threads, backend },
    log: console.error,
  });
  for (const line of absences(peers.missing)) console.error(line);
  if (!peers.contestants.length) throw new Error("Nobody is left to be compared.");

  const machine = `${host.cpu}, ${threads} threads`, { vocab_size } = await readConfig(model.path);
  const { text, result, chart } = await withProgress(
    "runs",
    ({ update }) =>
      workload.bench(peers.contestants, {
        ...{ where: { model: title, machine }, vocabSize: vocab_size, batchSizes, maxTokens, repeats, requests },
        onProgress: update,
      }),
  );
  const created = new Date().toISOString();
  const introductions = peers.contestants.map(({ name, dtype, generator }) => ({
    name,
    dtype,
    ...generator.introduction,
  }));
  const common = { schemaVersion: 2, workload: name, created, host, threads, model: title, missing: peers.missing };
  await report({
    text: [text, ...absences(peers.missing)].join("\n\n"),
    result: { ...common, peers: introductions, ...result },
    chart,
  });
});

/** Results that an earlier run stored. */
async function storedRun(file: string): Promise<StoredRun> {
  try {
    const run = JSON.parse(await Deno.readTextFile(file));
    if (run.workload === "static" && Array.isArray(run.contestants)) return run;
  } catch (error) {
    throw new UsageError(`--median-of cannot read ${file}: ${(error as Error).message}`);
  }
  throw new UsageError(`--median-of needs results of the workload static, and ${file} has none.`);
}

/** The names in a flag's list. */
function chosen<T extends string>(flag: string, text: string | undefined, all: readonly T[]): readonly T[] {
  const names = text?.split(",") ?? all;
  const wrong = names.find((name) => !all.includes(name as T));
  if (wrong !== undefined) throw new UsageError(`--${flag} has no "${wrong}": use ${all.join(", ")}.`);
  return names as readonly T[];
}
