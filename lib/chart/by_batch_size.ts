/** Throughput and latency as lines over the batch size. */

import { lineChart, type LineSeries } from "./lines.ts";
import type { Chart, ChartOptions } from "./specification.ts";

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
 * Tokens per second by batch size, both logarithmic: perfect batching is a straight line upwards.
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
  const y = { quantity: "Throughput", title: "Throughput (tokens/s)", unit: "tok/s", log: true };
  return lineChart(toLines(series), { ...options, x: batchSizes(series), y });
}

/** Milliseconds per generated token by batch size, from zero upwards. The values given are seconds. */
export function latencyChart(series: ChartSeries[], options: ChartOptions): Chart {
  const y = { quantity: "Latency", title: "Latency (ms per token)", unit: "ms" };
  return lineChart(toLines(series, 1000), { ...options, x: batchSizes(series), y });
}

function batchSizes(series: ChartSeries[]) {
  const sizes = new Set(series.flatMap(({ points }) => points.map(({ batchSize }) => batchSize)));
  const title = "Batch size (prompts generated together)";
  return { quantity: "batch size", title, log: true, ticks: [...sizes].sort((a, b) => a - b) };
}

function toLines(series: ChartSeries[], factor = 1): LineSeries[] {
  return series.map(({ points, ...rest }) => ({
    ...rest,
    points: points.map(({ batchSize, value, low, high }) => ({
      x: batchSize,
      y: value * factor,
      low: low && low * factor,
      high: high && high * factor,
    })),
  }));
}
