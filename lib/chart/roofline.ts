/** The roofline chart: what a machine allows, and how much of it is used (Williams et al. 2009, figure 1). */

import { logTicks } from "./by_batch_size.ts";
import { seriesColors, seriesShapes } from "./lines.ts";
import { type Chart, type ChartOptions, formatNumber, makeChart } from "./specification.ts";

/** Later roofs leave gaps, through which one sees those that they cover. */
const dashes = [[1, 0], [10, 6], [3, 5]];

/** A machine, in one of its ways of computing, and what was measured on it. */
export interface RooflineSeries {
  /** What the legend calls it. */
  name: string;
  /** Bytes per second from memory: the slope. */
  bandwidth: number;
  /** Operations per second: the flat part. */
  flops: number;
  /** What was measured, by rising intensity. */
  points: RooflinePoint[];
}

/** One measurement. */
export interface RooflinePoint {
  /** Operations for each byte that is read. */
  intensity: number;
  /** Operations per second. */
  flops: number;
  /** What stands below it, such as `batch 1`. */
  label?: string;
}

/**
 * Operations per second over operations per byte, both logarithmic. A roof for each series, which rises while memory is
 * the limit and is flat from its knee on, where arithmetic is; below it, the measured points.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { rooflineChart } from "../chart.ts";
 *
 * const points = [{ intensity: 0.5, flops: 7e9, label: "batch 1" }];
 * const series = [{ name: "float32", bandwidth: 20e9, flops: 200e9, points }];
 * const chart = rooflineChart(series, { title: "Batch 1 waits for memory" });
 * assert.equal(
 *   chart.description,
 *   "Batch 1 waits for memory. float32: at most 20 GB/s and 200 billion operations/s, knee at 10 operations per byte; " +
 *     "batch 1: 7 billion operations/s at 0.5 operations per byte.",
 * );
 * ```
 */
export function rooflineChart(series: readonly RooflineSeries[], { title, subtitle }: ChartOptions): Chart {
  const points = series.flatMap(({ name, points }) =>
    points.map(({ intensity, flops, label = "" }) => ({ series: name, intensity, billions: flops / 1e9, label }))
  );
  const sound = (value: number) => Number.isFinite(value) && value > 0;
  const bad = [...points.flatMap(({ intensity, billions }) => [intensity, billions]), ...series.flatMap(roofNumbers)]
    .find((value) => !sound(value));
  if (bad !== undefined || !points.length) {
    throw new RangeError(`Cannot chart a roofline: ${bad === undefined ? "there are no points" : `${bad} is in it`}.`);
  }
  const knees = series.map(({ name, bandwidth, flops }) => ({
    series: name,
    intensity: flops / bandwidth,
    billions: flops / 1e9,
  }));
  const intensities = [...points, ...knees].map(({ intensity }) => intensity);
  const left = Math.min(...intensities) / 1.6, right = Math.max(...intensities) * 2.2;
  const lowest = Math.min(
    ...points.map(({ billions }) => billions),
    ...series.map(({ bandwidth }) => bandwidth * left / 1e9),
  );
  const yDomain = [lowest / 1.8, Math.max(...knees.map(({ billions }) => billions)) * 2.2];
  const roofs = series.flatMap(({ name, bandwidth, flops }, i) => [
    { series: name, intensity: left, billions: bandwidth * left / 1e9 },
    knees[i],
    { series: name, intensity: right, billions: flops / 1e9 },
  ]);
  const scale = (range: unknown[]) => ({ domain: series.map(({ name }) => name), range });
  const named = { field: "series", title: null };
  const axis = (field: string, title: string, domain: number[]) => ({
    field,
    type: "quantitative",
    title,
    scale: { type: "log", domain, nice: false },
    axis: { values: logTicks(domain), format: ",~r" },
  });
  return makeChart(`${title}. ${series.map(inWords).join(" ")}`, {
    title: { text: title, subtitle },
    width: 600,
    height: 340,
    data: { values: points },
    encoding: {
      x: axis("intensity", "Operations per byte read (log scale)", [left, right]),
      y: axis("billions", "Speed (billion operations/s, log scale)", yDomain),
      color: { ...named, scale: scale(seriesColors(series)), legend: { symbolStrokeWidth: 0 } },
    },
    layer: [
      {
        data: { values: roofs },
        mark: { type: "line", strokeWidth: 2.5 },
        encoding: {
          strokeDash: {
            ...named,
            scale: scale(series.map((_, i) => dashes[i % dashes.length])),
            legend: { symbolStrokeWidth: 0 },
          },
        },
      },
      ...knees.map((knee, i) => ({
        data: { values: [{ ...knee, text: `knee ${formatNumber(knee.intensity)}` }] },
        mark: { type: "text", dy: -9 - 14 * overlapping(knees, i), fontSize: 12, fontWeight: "bold" },
        encoding: { text: { field: "text" } },
      })),
      {
        mark: { type: "point", filled: true, size: 60, opacity: 1 },
        encoding: { shape: { ...named, scale: scale(series.map((_, i) => seriesShapes[i % seriesShapes.length])) } },
      },
      {
        mark: { type: "text", baseline: "top", dy: 9, fontSize: 11 },
        encoding: { text: { field: "label" } },
      },
    ],
  });
}

/** How many of the knees before this one are in the place where its name would stand. */
function overlapping(knees: readonly { intensity: number; billions: number }[], index: number): number {
  const near = (a: number, b: number) => Math.abs(Math.log(a / b)) < Math.log(1.8);
  const { intensity, billions } = knees[index];
  return knees.slice(0, index).filter((knee) => near(knee.intensity, intensity) && near(knee.billions, billions))
    .length;
}

function roofNumbers({ bandwidth, flops }: RooflineSeries): number[] {
  return [bandwidth, flops];
}

function inWords({ name, bandwidth, flops, points }: RooflineSeries): string {
  const speed = (value: number) => `${formatNumber(value / 1e9)} billion operations/s`;
  const perByte = (value: number) => `${formatNumber(value)} operations per byte`;
  const measured = points.map(({ intensity, flops, label }) =>
    `${label ? `${label}: ` : ""}${speed(flops)} at ${perByte(intensity)}`
  );
  const roof = `at most ${formatNumber(bandwidth / 1e9)} GB/s and ${speed(flops)}, knee at ${
    perByte(flops / bandwidth)
  }`;
  return `${name}: ${[roof, ...measured].join("; ")}.`;
}
