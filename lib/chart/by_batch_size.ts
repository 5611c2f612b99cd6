/** Throughput and latency as lines over the batch size. */

import { checkPoints, drawLines, named } from "./lines.ts";
import { type Chart, type ChartOptions, formatNumber } from "./specification.ts";

/** One measurement: tokens per second for throughput, seconds per token for latency. */
export interface ChartPoint {
  /** Prompts generated together. */
  batchSize: number;
  /** The measurement, where there are repeats their median. */
  value: number;
  /** The least of the repeats. */
  low?: number;
  /** The greatest of the repeats. */
  high?: number;
}

/** A named line of measurements. */
export interface ChartSeries {
  /** What the legend calls it. */
  name: string;
  /** By rising batch size. */
  points: ChartPoint[];
  /** Draws it grey and dashed: figures to compare with, not the ones that the chart is about. */
  muted?: boolean;
}

/**
 * Tokens per second by batch size, both logarithmic: perfect batching is a straight line upwards. Lines that leave sizes out
 * are dashed.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { throughputChart } from "../chart.ts";
 *
 * const points = [{ batchSize: 1, value: 28 }, { batchSize: 128, value: 680 }];
 * const chart = throughputChart([{ name: "float32", points }], { title: "24x at batch 128" });
 * assert.equal(chart.description, "24x at batch 128. Throughput by batch size: float32: 1: 28 tok/s, 128: 680 tok/s.");
 * ```
 */
export function throughputChart(series: ChartSeries[], options: ChartOptions): Chart {
  return byBatchSize(series, options, { quantity: "Throughput", axisUnit: "tokens/s", unit: "tok/s", log: true });
}

/** What a {@link latencyChart} shows. */
export interface LatencyChartOptions extends ChartOptions {
  /** Draws latency on a logarithmic axis: for machines that are many times as fast as each other. Default false. */
  log?: boolean;
}

/** Milliseconds per generated token by batch size, from zero upwards unless `log`. The values given are seconds. */
export function latencyChart(series: ChartSeries[], { log = false, ...options }: LatencyChartOptions): Chart {
  const milliseconds = series.map((one) => ({ ...one, points: one.points.map((point) => scale(point, 1000)) }));
  return byBatchSize(milliseconds, options, { quantity: "Latency", axisUnit: "ms per token", unit: "ms", log });
}

interface LineStyle {
  quantity: string;
  axisUnit: string;
  unit: string;
  log: boolean;
}

function byBatchSize(series: ChartSeries[], { title, subtitle }: ChartOptions, style: LineStyle): Chart {
  const { quantity, axisUnit, log } = style;
  const values = named(series);
  checkPoints(quantity, values, ({ batchSize, value }) => batchSize > 0 && value > 0 && Number.isFinite(value));
  const sizes = [...new Set(values.map(({ batchSize }) => batchSize))].sort((a, b) => a - b);
  const heights = values.flatMap(({ value, low = value, high = value }) => [low, high]);
  const domain = log ? [Math.min(...heights) / 1.3, Math.max(...heights) * 1.3] : [0, Math.max(...heights) * 1.1];
  const margin = Math.max(2, sizes.at(-1)! / sizes[0]) ** 0.09; // room for the numbers at both ends
  return drawLines(series.map((one) => ({ ...one, dashed: leavesOut(one, sizes) })), {
    description: inWords(title, series, style),
    title: { text: title, subtitle },
    x: {
      field: "batchSize",
      type: "quantitative",
      title: "Batch size (prompts generated together)",
      scale: { type: "log", base: 2, domain: [sizes[0] / margin, sizes.at(-1)! * margin], nice: false },
      axis: { values: sizes, format: "d", grid: false, labelOverlap: "greedy" },
    },
    y: {
      field: "value",
      type: "quantitative",
      title: `${quantity} (${axisUnit}${log ? ", log scale" : ""})`,
      scale: { type: log ? "log" : "linear", domain, nice: false },
      axis: { format: ",~r", minExtent: 46, ...(log ? { values: logTicks(domain) } : { tickCount: 5 }) },
    },
    labelledEnds: [0, -1],
  });
}

/** Round numbers within a domain: 1, 2, 5, 10, 20, 50…, or fewer in a wide one and more in a narrow one. */
export function logTicks([low, high]: number[]): number[] {
  const ratio = high / low;
  const steps = ratio > 5000 ? [1] : ratio > 8 ? [1, 2, 5] : [1, 2, 3, 4, 5, 6, 7, 8, 9];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    ticks.push(...steps.map((step) => Number((step * 10 ** power).toPrecision(1))));
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
}

/** Whether between its points there are sizes that others have and it has not: it is dashed then, because nobody measured there. */
function leavesOut({ points }: ChartSeries, sizes: readonly number[]): boolean {
  const own = points.map(({ batchSize }) => batchSize);
  const between = sizes.filter((size) => size >= Math.min(...own) && size <= Math.max(...own));
  return between.some((size) => !own.includes(size));
}

function inWords(title: string, series: ChartSeries[], { quantity, unit }: LineStyle): string {
  const lists = series.map(({ name, points }) =>
    `${name}: ${points.map(({ batchSize, value }) => `${batchSize}: ${formatNumber(value)} ${unit}`).join(", ")}`
  );
  return `${title}. ${quantity} by batch size: ${lists.join("; ")}.`;
}

function scale({ batchSize, value, low, high }: ChartPoint, factor: number): ChartPoint {
  return { batchSize, value: value * factor, low: low && low * factor, high: high && high * factor };
}
