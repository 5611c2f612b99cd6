/** Lines over a quantity: what all charts of measurements by batch size, length or size share. */

import { type Chart, type ChartOptions, formatNumber, makeChart } from "./specification.ts";

/** One measurement. */
export interface LinePoint {
  /** Where it was taken. */
  x: number;
  /** What came out, where there are repeats their median. */
  y: number;
  /** The least of the repeats. */
  low?: number;
  /** The greatest of the repeats. */
  high?: number;
}

/** A named line of measurements. */
export interface LineSeries {
  /** What the legend calls it. */
  name: string;
  /** By rising x. */
  points: LinePoint[];
  /** Draws it grey and dashed: figures to compare with, not the ones that the chart is about. */
  muted?: boolean;
}

/** One of the two axes. */
export interface LineAxis {
  /** What it measures, for the words: `Throughput`. */
  quantity: string;
  /** What stands at the axis, units included: `Throughput (tokens/s)`. */
  title: string;
  /** What follows a value in the words. Default: nothing. */
  unit?: string;
  /** Logarithmic; else from zero, or from the first x. */
  log?: boolean;
  /** Where numbers stand. Default: round ones. On the x axis of few points, those of the points do well. */
  ticks?: number[];
}

/** What a {@link lineChart} shows. */
export interface LineChartOptions extends ChartOptions {
  /** From left to right. */
  x: LineAxis;
  /** From below upwards. */
  y: LineAxis;
}

const plot = { width: 600, height: 260 };
/** Okabe and Ito's colours: the colour-blind can tell them apart, and shapes help. */
export const seriesPalette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/** Their shapes, in the same order. */
export const seriesShapes = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"];

/**
 * Measurements as lines, with bars from the least to the greatest repeat and the values at the ends of each line.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { lineChart } from "../chart.ts";
 *
 * const points = [{ x: 0, y: 0.5 }, { x: 3, y: 1.25 }];
 * const chart = lineChart([{ name: "no mask", points }], {
 *   title: "Padding is heard",
 *   x: { quantity: "padding", title: "Padding cells" },
 *   y: { quantity: "Error", title: "Error (nats)", unit: "nats" },
 * });
 * assert.equal(chart.description, "Padding is heard. Error by padding: no mask: 0: 0.5 nats, 3: 1.25 nats.");
 * ```
 */
export function lineChart(series: LineSeries[], { title, subtitle, x, y }: LineChartOptions): Chart {
  const values = series.flatMap(({ name, points }) => points.map((point) => ({ series: name, ...point })));
  const fits = (value: number, { log }: LineAxis) => Number.isFinite(value) && (!log || value > 0);
  const bad = values.find((point) => !fits(point.x, x) || !fits(point.y, y));
  if (bad || !values.length) {
    throw new RangeError(
      `Cannot chart ${y.quantity.toLowerCase()}: ${bad ? JSON.stringify(bad) : "there are no points"}.`,
    );
  }
  const heights = values.flatMap(({ y, low = y, high = y }) => [low, high]);
  const places = values.map(({ x }) => x);
  const xDomain = withMargins(Math.min(...places), Math.max(...places), x.log);
  const yDomain = y.log
    ? [Math.min(...heights) / 1.3, Math.max(...heights) * 1.3]
    : [Math.min(0, ...heights), Math.max(...heights, 1e-9) * 1.1];
  const perSeries = (range: unknown[]) => ({ domain: series.map(({ name }) => name), range });
  const named = { field: "series", title: null, legend: series.length > 1 ? { symbolStrokeWidth: 0 } : null };
  const ticks = ({ ticks, log }: LineAxis, domain: number[]) =>
    ticks ? { values: ticks } : log ? { values: logTicks(domain) } : { tickCount: 5 };
  return makeChart(inWords(title, series, x, y), {
    title: { text: title, subtitle },
    width: plot.width,
    height: plot.height,
    data: { values },
    encoding: {
      x: {
        field: "x",
        type: "quantitative",
        title: x.title,
        scale: { type: x.log ? "log" : "linear", ...x.log && { base: 2 }, domain: xDomain, nice: false },
        axis: { ...ticks(x, xDomain), format: ",~r", grid: false, labelOverlap: "greedy" },
      },
      y: {
        field: "y",
        type: "quantitative",
        title: y.log ? y.title.replace(/\)?$/, (end) => end ? ", log scale)" : " (log scale)") : y.title,
        scale: { type: y.log ? "log" : "linear", domain: yDomain, nice: false },
        axis: { format: ",~r", minExtent: 46, ...ticks(y, yDomain) },
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
        encoding: {
          shape: { ...named, scale: perSeries(series.map((_, i) => seriesShapes[i % seriesShapes.length])) },
        },
      },
      ...[0, -1].map((end) => ({
        data: { values: endLabels(series, end, yDomain, y.log) },
        mark: { type: "text", align: end ? "left" : "right", dx: end ? 9 : -9, fontSize: 12, fontWeight: "bold" },
        encoding: { y: { field: "at", type: "quantitative" }, text: { field: "text" } },
      })),
    ],
  });
}

/** Room for the numbers at both ends of the lines. */
function withMargins(low: number, high: number, log = false): [number, number] {
  if (!log) return [low - Math.max(1e-9, high - low) * 0.09, high + Math.max(1e-9, high - low) * 0.09];
  const margin = Math.max(2, high / low) ** 0.09;
  return [low / margin, high * margin];
}

/** The numbers at one end of the lines, moved apart where they would cover each other. */
function endLabels(series: LineSeries[], end: number, [low, high]: number[], log = false) {
  const [to, from] = log ? [Math.log, Math.exp] : [Number, Number];
  const gap = 14 / plot.height * (to(high) - to(low));
  let free = -Infinity;
  return series
    .filter(({ points }) => points.length > (end ? 0 : 1)) // a single point needs one label
    .map(({ name, points }) => ({ series: name, ...points.at(end)! }))
    .sort((a, b) => a.y - b.y)
    .map(({ y, ...rest }) => {
      const at = Math.max(to(y), free);
      free = at + gap;
      return { ...rest, at: from(at), text: formatNumber(y) };
    });
}

/** A colour for each line; grey for the muted ones. */
export function seriesColors(series: readonly { name: string; muted?: boolean }[]): string[] {
  let next = 0;
  return series.map(({ muted }) => muted ? "#6e7781" : seriesPalette[next++ % seriesPalette.length]);
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

function inWords(title: string, series: LineSeries[], x: LineAxis, y: LineAxis): string {
  const value = (axis: LineAxis, number: number) => formatNumber(number) + (axis.unit ? ` ${axis.unit}` : "");
  const lists = series.map(({ name, points }) =>
    `${name}: ${points.map((point) => `${value(x, point.x)}: ${value(y, point.y)}`).join(", ")}`
  );
  return `${title}. ${y.quantity} by ${x.quantity}: ${lists.join("; ")}.`;
}
