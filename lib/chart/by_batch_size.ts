/** Throughput and latency as lines over the batch size. */

import { type Chart, type ChartOptions, formatNumber, makeChart } from "./specification.ts";

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

const plot = { width: 600, height: 260 };
/** Okabe and Ito's colours: the colour-blind can tell them apart, and shapes help. */
const colors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const shapes = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"];

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
  return lineChart(series, options, { quantity: "Throughput", axisUnit: "tokens/s", unit: "tok/s", log: true });
}

/** Milliseconds per generated token by batch size, from zero upwards. The values given are seconds. */
export function latencyChart(series: ChartSeries[], options: ChartOptions): Chart {
  const milliseconds = series.map((one) => ({ ...one, points: one.points.map((point) => scale(point, 1000)) }));
  return lineChart(milliseconds, options, { quantity: "Latency", axisUnit: "ms per token", unit: "ms", log: false });
}

interface LineStyle {
  quantity: string;
  axisUnit: string;
  unit: string;
  log: boolean;
}

function lineChart(series: ChartSeries[], { title, subtitle }: ChartOptions, style: LineStyle): Chart {
  const { quantity, axisUnit, log } = style;
  const values = series.flatMap(({ name, points }) => points.map((point) => ({ series: name, ...point })));
  const bad = values.find(({ batchSize, value }) => !(batchSize > 0 && value > 0 && Number.isFinite(value)));
  if (bad || !values.length) {
    throw new RangeError(
      `Cannot chart ${quantity.toLowerCase()}: ${bad ? JSON.stringify(bad) : "there are no points"}.`,
    );
  }
  const sizes = [...new Set(values.map(({ batchSize }) => batchSize))].sort((a, b) => a - b);
  const heights = values.flatMap(({ value, low = value, high = value }) => [low, high]);
  const domain = log ? [Math.min(...heights) / 1.3, Math.max(...heights) * 1.3] : [0, Math.max(...heights) * 1.1];
  const margin = Math.max(2, sizes.at(-1)! / sizes[0]) ** 0.09; // room for the numbers at both ends
  const perSeries = (range: unknown[]) => ({ domain: series.map(({ name }) => name), range });
  const named = { field: "series", title: null, legend: series.length > 1 ? { symbolStrokeWidth: 0 } : null };
  return makeChart(inWords(title, series, style), {
    title: { text: title, subtitle },
    width: plot.width,
    height: plot.height,
    data: { values },
    encoding: {
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
      color: { ...named, scale: perSeries(seriesColors(series)) },
    },
    layer: [
      {
        mark: { type: "line", strokeWidth: 2 },
        encoding: {
          strokeDash: { ...named, scale: perSeries(series.map(({ muted }) => muted ? [5, 4] : [1, 0])) },
        },
      },
      {
        transform: [{ filter: "isValid(datum.low) && isValid(datum.high)" }],
        mark: { type: "rule", strokeWidth: 6, opacity: 0.35 },
        encoding: { y: { field: "low", type: "quantitative" }, y2: { field: "high" } },
      },
      {
        mark: { type: "point", filled: true, size: 60, opacity: 1 },
        encoding: { shape: { ...named, scale: perSeries(series.map((_, i) => shapes[i % shapes.length])) } },
      },
      ...[0, -1].map((end) => ({
        data: { values: endLabels(series, end, domain, log) },
        mark: { type: "text", align: end ? "left" : "right", dx: end ? 9 : -9, fontSize: 12, fontWeight: "bold" },
        encoding: { y: { field: "at", type: "quantitative" }, text: { field: "text" } },
      })),
    ],
  });
}

/** The numbers at one end of the lines, moved apart where they would cover each other. */
function endLabels(series: ChartSeries[], end: number, [low, high]: number[], log: boolean) {
  const [to, from] = log ? [Math.log, Math.exp] : [Number, Number];
  const gap = 14 / plot.height * (to(high) - to(low));
  let free = -Infinity;
  return series
    .filter(({ points }) => points.length > (end ? 0 : 1)) // a single point needs one label
    .map(({ name, points }) => ({ series: name, ...points.at(end)! }))
    .sort((a, b) => a.value - b.value)
    .map(({ value, ...rest }) => {
      const at = Math.max(to(value), free);
      free = at + gap;
      return { ...rest, at: from(at), text: formatNumber(value) };
    });
}

function seriesColors(series: ChartSeries[]): string[] {
  let next = 0;
  return series.map(({ muted }) => muted ? "#6e7781" : colors[next++ % colors.length]);
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

function inWords(title: string, series: ChartSeries[], { quantity, unit }: LineStyle): string {
  const lists = series.map(({ name, points }) =>
    `${name}: ${points.map(({ batchSize, value }) => `${batchSize}: ${formatNumber(value)} ${unit}`).join(", ")}`
  );
  return `${title}. ${quantity} by batch size: ${lists.join("; ")}.`;
}

function scale({ batchSize, value, low, high }: ChartPoint, factor: number): ChartPoint {
  return { batchSize, value: value * factor, low: low && low * factor, high: high && high * factor };
}
