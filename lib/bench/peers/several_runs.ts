/** Several runs of `deno task bench`, hours apart, as one: what a machine gives changes with the hour. */

import type { MachineState } from "../machine_state.ts";
import { median } from "../../util/median.ts";
import { table } from "../../util/table.ts";
import { doubts, type Point, ratiosOf, type Standing } from "./compare.ts";
import type { Findings } from "./findings.ts";
import { allRatios, benchChart, tables } from "./report.ts";

/** What is read of the results of one run of the workload `static`. */
export interface StoredRun {
  workload: string;
  created: string;
  model: string;
  threads: number;
  host: { cpu: string };
  promptTokens: number;
  maxTokens: number;
  contestants: Standing[];
  machine: MachineState[];
}

/** Their medians; what programs get is the first run's results with these in place of its own. */
export function severalRuns(runs: readonly StoredRun[]): Findings {
  const [first] = runs, { model, threads, host, promptTokens, maxTokens } = first;
  const standings = runs.map(({ contestants }) => contestants), medians = medianOfRuns(standings);
  const subtitle = `${model}, ${promptTokens}-token prompts, ${maxTokens} new tokens; ${host.cpu}, ${threads} threads`;
  const created = runs.map(({ created }) => created);
  const text = [
    `${subtitle}; medians of ${runs.length} runs, of ${created.join(", ")}`,
    tables(medians),
    `End to end, the geometric mean over the batch sizes and the smallest of them:\n\n${
      rangeLines(medians, standings)
    }`,
    ...doubts(medians),
  ].join("\n\n");
  const machine = runs.flatMap(({ machine }) => machine);
  const result = { ...first, created, contestants: medians, machine, ratios: allRatios(medians) };
  return { text, result, chart: benchChart(medians, { maxTokens, subtitle }) };
}

/** Of every number the median of the runs, and the times of all of them. Throws unless all have the same contestants and sizes. */
function medianOfRuns(runs: readonly (readonly Standing[])[]): Standing[] {
  const shape = (run: readonly Standing[]) =>
    JSON.stringify(run.map(({ name, dtype, points }) => [name, dtype, points.map(({ batchSize }) => batchSize)]));
  const odd = runs.findIndex((run) => shape(run) !== shape(runs[0]));
  if (odd > 0) {
    throw new RangeError(`Run ${odd + 1} has other contestants or batch sizes than the first: leave it out.`);
  }
  return runs[0].map((standing, i) => {
    const all = runs.map((run) => run[i]);
    return {
      ...standing,
      points: standing.points.map((_, size) => medianPoint(all.map(({ points }) => points[size]))),
      steady: all.every(({ steady }) => steady),
      sameTokens: all.every(({ sameTokens }) => sameTokens),
      logitsError: Math.max(...all.map(({ logitsError }) => logitsError)),
    };
  });
}

function medianPoint(points: readonly Point[]): Point {
  const of = (key: "totalSeconds" | "prefillSeconds" | "decodeSeconds" | "throughput") =>
    median(points.map((point) => point[key]));
  return {
    batchSize: points[0].batchSize,
    totalSeconds: of("totalSeconds"),
    prefillSeconds: of("prefillSeconds"),
    decodeSeconds: of("decodeSeconds"),
    throughput: of("throughput"),
    decodeThroughput: points[0].decodeThroughput && median(points.map(({ decodeThroughput }) => decodeThroughput!)),
    repeats: points.flatMap(({ repeats }) => repeats),
  };
}

/** How Omnibus stands to the others end to end: in the medians of the runs, and in each. */
function rangeLines(medians: readonly Standing[], runs: readonly (readonly Standing[])[]): string {
  const ratios = (standings: readonly Standing[]) => ratiosOf(standings, "omnibus", ({ throughput }) => throughput);
  const times = (ratio: number) => `${ratio.toFixed(2)}x`, columns = [medians, ...runs].map(ratios);
  const rows = columns[0].map(({ dtype, against }, i) => [
    `omnibus / ${against}, ${dtype}`,
    ...columns.map((column) => times(column[i].geometricMean)),
    ...columns.map((column) => times(column[i].ratios[0])),
  ]);
  const names = runs.map((_, i) => `run ${i + 1}`), { batchSize } = medians[0].points[0];
  return table([["", "all sizes", ...names, `batch ${batchSize}`, ...names], ...rows]);
}
