/** The result of a sweep as two charts. */

import { type ChartPoint, type ChartSeries, latencyChart, throughputChart } from "./by_batch_size.ts";
import { type Chart, type ChartOptions, formatNumber, stackCharts } from "./specification.ts";
import { times } from "./words.ts";

/** What {@link sweepChart} reads of a sweep's result. */
export interface SweepLike {
  /** The model's name. */
  model: string;
  /** What computed. */
  backend: string;
  /** Of the weights. */
  dtype: string;
  /** New tokens of each prompt. */
  maxTokens: number;
  /** By rising batch size. */
  points: TimedPoint[];
}

/** One batch size of a sweep. */
export interface TimedPoint {
  /** Prompts generated together. */
  batchSize: number;
  /** New tokens per second, where there are repeats their median. */
  throughput: number;
  /** Total seconds of each run. */
  repeats: number[];
}

/** Options of {@link sweepChart}. */
export interface SweepChartOptions extends Partial<ChartOptions> {
  /** Throughputs from elsewhere, to draw beside the measured ones. */
  reference?: ChartSeries[];
}

/**
 * Throughput above latency for one result of a sweep, or several to compare. Bars span the slowest and the fastest
 * repeat. The title defaults to the gain of one result, or the fastest of several.
 */
export function sweepChart(
  results: SweepLike[],
  { title, subtitle, reference = [] }: SweepChartOptions = {},
): Chart {
  const names = distinctNames(results);
  const measured = results.map(({ points, maxTokens }, i) => ({
    name: names[i],
    points: throughputPoints(points, maxTokens),
  }));
  const throughput = [...measured, ...reference];
  const latency = latencySeries(throughput);
  const slower = results.length === 1 && `Each token takes ${times(growth(latency[0]))} as long`;
  return stackCharts(
    throughputChart(throughput, { title: title ?? finding(measured), subtitle }),
    latencyChart(latency, { title: slower || "How long each token takes" }),
  );
}

/**
 * Points of a sweep as {@link throughputChart} draws them, each with the slowest and the fastest of its repeats.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { throughputPoints } from "../chart.ts";
 *
 * const points = [{ batchSize: 8, throughput: 100, repeats: [0.8, 1, 0.5] }];
 * assert.deepEqual(throughputPoints(points, 10), [{ batchSize: 8, value: 100, low: 80, high: 160 }]);
 * ```
 */
export function throughputPoints(points: readonly TimedPoint[], maxTokens: number): ChartPoint[] {
  return points.map(({ batchSize, throughput, repeats }) => {
    const tokens = batchSize * maxTokens;
    return { batchSize, value: throughput, low: tokens / Math.max(...repeats), high: tokens / Math.min(...repeats) };
  });
}

/**
 * Lines of throughput as {@link latencyChart} draws them: rows of a batch move together, so a token takes
 * batchSize / throughput seconds.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { latencySeries } from "../chart.ts";
 *
 * const series = [{ name: "float32", points: [{ batchSize: 8, value: 100, low: 80, high: 160 }] }];
 * assert.deepEqual(latencySeries(series)[0].points, [{ batchSize: 8, value: 0.08, low: 0.05, high: 0.1 }]);
 * ```
 */
export function latencySeries(series: readonly ChartSeries[]): ChartSeries[] {
  const latencyOf = ({ batchSize, value, low, high }: ChartPoint): ChartPoint => ({
    batchSize,
    value: batchSize / value,
    low: high && batchSize / high,
    high: low && batchSize / low,
  });
  return series.map((one) => ({ ...one, points: one.points.map(latencyOf) }));
}

function finding(series: ChartSeries[]): string {
  const ends = series.map(({ name, points }) => ({ name, ...points.at(-1)! })).sort((a, b) => b.value - a.value);
  const [{ name, value, batchSize }] = ends;
  if (series.length > 1) return `${name} is fastest: ${formatNumber(value)} tokens per second at batch ${batchSize}`;
  return `${times(growth(series[0]))} the tokens per second at batch ${batchSize}`;
}

/** How many times the first value the last one is. */
function growth({ points }: ChartSeries): number {
  return points.at(-1)!.value / points[0].value;
}

/** What tells the results apart; all of it where there is just one. */
function distinctNames(results: SweepLike[]): string[] {
  const fields = (["model", "dtype", "backend"] as const)
    .filter((field) => results.length === 1 || new Set(results.map((result) => result[field])).size > 1);
  const names = results.map((result, i) => fields.map((field) => result[field]).join(", ") || `run ${i + 1}`);
  return names.map((name, i) => names.indexOf(name) === names.lastIndexOf(name) ? name : `${name} (${i + 1})`);
}
