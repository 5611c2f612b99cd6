/** `deno task bench`: Omnibus and the engines that people would pick instead, side by side on one machine. */

import { cpus } from "node:os";
import { basename, join } from "node:path";
import { CANDIDATES, startAll } from "../bench/peers/catalog.ts";
import { compare, doubts, ratiosOf } from "../bench/peers/compare.ts";
import { BENCH_FOLDER, missingPackages } from "../bench/peers/environment.ts";
import { benchModel } from "../bench/peers/model.ts";
import { absences, answers, benchChart, RATES, tables } from "../bench/peers/report.ts";
import { renderSvg } from "../chart.ts";
import { FOX } from "../bench/fox.ts";
import { DTYPES } from "../backend/ops.ts";
import { run, UsageError, wholeNumber } from "./command.ts";
import { output, pictureOutput } from "./output.ts";
import { formatBytes } from "../util/format.ts";
import { withProgress } from "../util/progress.ts";

await run({
  name: "bench",
  summary: "Compares Omnibus with other engines: the same weights, prompts and threads, run in turns.",
  flags: {
    peers: {
      type: "string",
      value: "a,b,…",
      help: `of ${CANDIDATES.map(({ name }) => name).join(", ")} (default all)`,
    },
    dtypes: { type: "string", value: "a,b,…", help: `of ${DTYPES.join(", ")} (default all)` },
    "batch-sizes": { type: "string", value: "1,2,…", help: "default 1,2,4,8,16,32,64,128" },
    "max-tokens": { type: "string", value: "N", help: "new tokens of every row (default 10)" },
    repeats: { type: "string", value: "N", help: "rounds that count, after one that does not (default 5)" },
    json: { type: "string", value: "FILE", help: "where the results go (default results/bench.json)" },
    chart: { type: "string", value: "FILE.svg", help: "where the chart goes (default results/bench.svg)" },
  },
}, async (flags) => {
  const names = chosen("peers", flags.peers, CANDIDATES.map(({ name }) => name));
  const dtypes = chosen("dtypes", flags.dtypes, DTYPES);
  const batchSizes = (flags["batch-sizes"] ?? "1,2,4,8,16,32,64,128").split(",")
    .map((size) => wholeNumber(size, "batch-sizes", 1));
  const maxTokens = wholeNumber(flags["max-tokens"], "max-tokens", 10);
  const repeats = wholeNumber(flags.repeats, "repeats", 5);
  const writeChart = await pictureOutput("chart", flags.chart, "bench.svg");
  const writeJson = await output("json", flags.json, "bench.json");
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
  await using peers = await startAll(candidates, dtypes, { model: model.path, cache, threads, log: console.error });
  for (const line of absences(peers.missing)) console.error(line);
  if (!peers.contestants.length) throw new Error("Nobody is left to be compared.");

  const standings = await withProgress(
    "runs",
    ({ update }) => compare(peers.contestants, { ids: FOX, batchSizes, maxTokens, repeats, onProgress: update }),
  );
  const subtitle = `${title}, ${FOX.length}-token prompts, ${maxTokens} new tokens; ${host.cpu}, ${threads} threads`;
  console.log(`${subtitle}; medians of ${repeats} runs in turns`);
  console.log("Below each column: omnibus / this peer, the geometric mean over the batch sizes and the least.\n");
  console.log(tables(standings) + "\n\n" + answers(standings));
  for (const line of [...doubts(standings), ...absences(peers.missing)]) console.log(`\n${line}`);

  const created = new Date().toISOString();
  const result = {
    ...{ schemaVersion: 1, created, host, threads, model: title, promptTokens: FOX.length, maxTokens, repeats },
    contestants: standings.map((standing, i) => ({ ...standing, ...peers.contestants[i].generator.introduction })),
    missing: peers.missing,
    ratios: Object.fromEntries(RATES.map(([heading, rate]) => [heading, ratiosOf(standings, "omnibus", rate)])),
  };
  const json = await writeJson(JSON.stringify(result, null, 2) + "\n");
  const chart = await writeChart(await renderSvg(benchChart(standings, { maxTokens, subtitle })));
  console.log(`\nResults: ${json}\nChart:   ${chart}`);
});

/** The names in a flag's list. */
function chosen<T extends string>(flag: string, text: string | undefined, all: readonly T[]): readonly T[] {
  const names = text?.split(",") ?? all;
  const wrong = names.find((name) => !all.includes(name as T));
  if (wrong !== undefined) throw new UsageError(`--${flag} has no "${wrong}": use ${all.join(", ")}.`);
  return names as readonly T[];
}
