/** `deno task sweep`: the batching experiment, as a table, a results file and a chart. */

import { renderSvg, sweepChart } from "../chart.ts";
import { type Profile, profileStep } from "../bench/profile.ts";
import { SOURCE_POINTS, sweep, type SweepResult } from "../bench/measure.ts";
import { compareSweeps } from "./compare.ts";
import { run, UsageError, wholeNumber } from "./command.ts";
import { chosenParallelism, loadOrMakeModel, modelFlags } from "./model_flags.ts";
import { output, pictureOutput } from "./output.ts";
import { ensurePlan } from "./plan.ts";
import { formatBytes } from "../util/format.ts";
import { withProgress } from "../util/progress.ts";
import { table } from "../util/table.ts";

await run({
  name: "sweep",
  summary: "Measures throughput and latency of GPT-2 at batch sizes 1 to 128, or compares what was measured.",
  words: "[FILE.json…]",
  flags: {
    ...modelFlags,
    "batch-sizes": { type: "string", value: "1,2,…", help: "default 1,2,4,8,16,32,64,128" },
    "prompt-tokens": { type: "string", value: "N|mixed", help: "tokens of every prompt (default 7), or 4 to 60 mixed" },
    "max-tokens": { type: "string", value: "N", help: "new tokens of every row (default 10)" },
    warmup: { type: "string", value: "N", help: "runs of each size that are not counted (default 1)" },
    repeats: { type: "string", value: "N", help: "runs of each size that are counted (default 3)" },
    seed: { type: "string", value: "N", help: "for mixed prompts (default 0)" },
    profile: { type: "boolean", help: "also say where the time of a decode step goes, at each batch size" },
    calibrate: { type: "boolean", help: "measure again how lanes and threads are best used" },
    compare: {
      type: "boolean",
      help: "measure nothing: compare the results in the files named, in one table and chart",
    },
    json: { type: "string", value: "FILE", help: "where the results go (default results/sweep.json)" },
    chart: { type: "string", value: "FILE.svg", help: "where the chart goes (default results/sweep.svg)" },
  },
}, async (flags, files) => {
  const batchSizes = flags["batch-sizes"]?.split(",").map((size) => wholeNumber(size, "batch-sizes", 1));
  const mixed = flags["prompt-tokens"] === "mixed";
  const promptTokens = mixed ? "mixed" : wholeNumber(flags["prompt-tokens"], "prompt-tokens", 7);
  const maxTokens = wholeNumber(flags["max-tokens"], "max-tokens", 10);
  const warmup = wholeNumber(flags.warmup, "warmup", 1, 0);
  const repeats = wholeNumber(flags.repeats, "repeats", 3);
  const seed = wholeNumber(flags.seed, "seed", 0, 0);
  if (files.length && !flags.compare) throw new UsageError(`Files are for --compare: what is ${files[0]}?`);
  const writeChart = await pictureOutput("chart", flags.chart, "sweep.svg");
  if (flags.compare) return await compareSweeps(files, writeChart);
  const writeJson = await output("json", flags.json, "sweep.json");

  const name = flags.model ?? "gpt2";
  const { model, random } = await loadOrMakeModel(name, flags);
  using _ = model;
  console.error(`${name} on ${model.backend.description}, ${model.dtype}`);
  const title = random ? `${name} (random weights)` : name;
  if (random) {
    console.error(`models/${name} is not there, so the weights are random: time does not depend on their values.`);
  }
  const parallelism = chosenParallelism(flags, model);
  if (!parallelism) await ensurePlan(model, { again: flags.calibrate });
  const result = await withProgress("runs", ({ update }) => {
    const onProgress = (done: number, total: number, batchSize: number) =>
      update(done, total, done < total ? `batch ${batchSize}` : "");
    const sizes = { batchSizes, maxTokens, warmup, repeats, seed };
    return sweep(model, { ...sizes, promptTokens, name: title, parallelism, onProgress });
  });
  print(result);
  if (flags.profile) {
    const slots = (promptTokens === "mixed" ? 60 : promptTokens) + maxTokens - 1; // of the last step
    for (const { batchSize, lanes, threadsPerLane: threads } of result.points) {
      printProfile(batchSize, await profileStep(model, { batchSize, slots, parallelism: { lanes, threads } }));
    }
  }
  const json = await writeJson(JSON.stringify(result, null, 2) + "\n");
  console.log(`\nResults: ${json}\nChart:   ${await writeChart(await renderSvg(drawing(result)))}`);
});

function print(
  { model, backend, dtype, threads, host, promptTokens, maxTokens, points, roofs, versions }: SweepResult,
) {
  const source = new Map(SOURCE_POINTS.map((point) => [point.batchSize, point.throughput]));
  const percent = (share: number | null) => share === null ? "" : `${Math.round(share * 100)}%`;
  const rows = points.map((point) => {
    const spread = (Math.max(...point.repeats) - Math.min(...point.repeats)) / point.totalSeconds;
    return [
      `${point.batchSize}`,
      point.throughput.toFixed(1),
      source.get(point.batchSize)?.toString() ?? "",
      `${point.speedup.toFixed(1)}x`,
      (point.latency * 1000).toFixed(1),
      (point.prefillSeconds * 1000).toFixed(0),
      (point.decodeSeconds * 1000 / Math.max(1, maxTokens - 1)).toFixed(1),
      point.decodeThroughput?.toFixed(1) ?? "",
      `${point.lanes}×${point.threadsPerLane}`,
      percent(point.mbu),
      percent(point.mfu),
      formatBytes(point.kvCacheBytes),
      ...promptTokens === "mixed" ? [percent(point.paddingShare)] : [],
      `±${Math.round(spread * 50)}%`,
    ];
  });
  const heading = [
    ...[
      "batch",
      "tok/s",
      "source",
      "speedup",
      "ms/token",
      "TTFT ms",
      "TPOT ms",
      "decode tok/s",
      "lanes",
      "MBU",
      "MFU",
      "cache",
    ],
    ...promptTokens === "mixed" ? ["padding"] : [],
    "spread",
  ];
  console.log(`${model.name}, ${dtype}, ${backend} (${versions.backend}), ${threads} threads`);
  console.log(
    `${host.cpu}, ${host.cores} cores; memory ${(roofs.bandwidth / 1e9).toFixed(1)} GB/s, matrix products ${
      (roofs.flops / 1e9).toFixed(0)
    } GFLOP/s`,
  );
  console.log(
    `${
      promptTokens === "mixed" ? "prompts of 4 to 60 tokens" : `${promptTokens}-token prompts`
    }, ${maxTokens} new tokens, greedy\n`,
  );
  console.log(table([heading, ...rows]));
}

/** The operations that take a hundredth of the time or more, and the rest in one line. */
function printProfile(batchSize: number, { stepSeconds, rows, threads, entries }: Profile) {
  const total = entries.reduce((sum, { seconds }) => sum + seconds, 0), few = 0.01 * total;
  const [large, small] = [entries.filter((e) => e.seconds >= few), entries.filter((e) => e.seconds < few)];
  const rest = { part: "", op: `${small.length} others`, count: 0, seconds: 0 };
  for (const { count, seconds } of small) rest.count += count, rest.seconds += seconds;
  const ms = (seconds: number) => (seconds * 1000).toFixed(2);
  const lines = [...large, rest].map(({ part, op, count, seconds }) => [
    part,
    op,
    `${count}`,
    ms(seconds),
    (seconds / count * 1e6).toFixed(1),
    `${Math.round(100 * seconds / total)}%`,
  ]);
  console.log(
    `\nA decode step at batch ${batchSize}: ${rows} rows in a lane, ${threads} threads, ${
      ms(stepSeconds)
    } ms with the ` +
      `trace; operations add up to ${ms(total)} ms of thread time\n`,
  );
  console.log(table([["part", "operation", "count", "ms", "µs each", "share"], ...lines]));
}

function drawing(result: SweepResult) {
  const reference = [{
    name: "the source's figures",
    muted: true,
    points: SOURCE_POINTS.map(({ batchSize, throughput }) => ({ batchSize, value: throughput })),
  }];
  return sweepChart([{ ...result, model: result.model.name }], { reference });
}
