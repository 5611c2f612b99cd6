/** The roofline chart: what a machine allows, and how much of it is used (Williams et al. 2009, figure 1). */

import { logTicks } from "./by_batch_size.ts";
import { seriesColors, seriesShapes } from "./lines.ts";
import { type Chart, type ChartOptions, formatNumber, makeChart, overLines } from "./specification.ts";

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

/** A point in the plot. */
interface Measured {
  series: string;
  intensity: number;
  billions: number;
  label: string;
}

const plot = { width: 600, height: 340 };

/** One measurement. */
export interface RooflinePoint {
  /** Operations for each byte that is read. */
  intensity: number;
  /** Operations per second. */
  flops: number;
  /** What stands beside it, such as `batch 1`. */
  label?: string;
}

/**
 * FLOP per second over FLOP per byte, both logarithmic. A roof for each series, which rises while memory is
 * the limit and is flat from its ridge point on, where arithmetic is; below it, the measured points.
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
 *   "Batch 1 waits for memory. float32: at most 20 GB/s and 200 GFLOP/s, ridge point at 10 FLOP per byte; " +
 *     "batch 1: 7 GFLOP/s at 0.5 FLOP per byte.",
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
  const ridges = series.map(({ name, bandwidth, flops }) => ({
    series: name,
    intensity: flops / bandwidth,
    billions: flops / 1e9,
  }));
  const intensities = [...points, ...ridges].map(({ intensity }) => intensity);
  const left = Math.min(...intensities) / 1.6, right = Math.max(...intensities) * 2.2;
  const lowest = Math.min(
    ...points.map(({ billions }) => billions),
    ...series.map(({ bandwidth }) => bandwidth * left / 1e9),
  );
  const yDomain = [lowest / 1.8, Math.max(...ridges.map(({ billions }) => billions)) * 2.2];
  const roofs = series.flatMap(({ name, bandwidth, flops }, i) => [
    { series: name, intensity: left, billions: bandwidth * left / 1e9 },
    ridges[i],
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
    ...plot,
    data: { values: points },
    encoding: {
      x: axis("intensity", "FLOP per byte read (log scale)", [left, right]),
      y: axis("billions", "Speed (GFLOP/s, log scale)", yDomain),
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
      ...ridges.flatMap((ridge, i) =>
        ridges.slice(0, i).some((other) => sameRidge(ridge, other)) ? [] : overLines({
          data: { values: [{ ...ridge, text: `ridge point ${formatNumber(ridge.intensity)}` }] },
          mark: { type: "text", dy: -9 - 14 * overlapping(ridges, i), fontSize: 12, fontWeight: "bold" },
          encoding: { text: { field: "text" } },
        })
      ),
      {
        mark: { type: "point", filled: true, size: 60, opacity: 1 },
        encoding: { shape: { ...named, scale: scale(series.map((_, i) => seriesShapes[i % seriesShapes.length])) } },
      },
      ...overLines({
        data: { values: placeLabels(points, [left, right], yDomain) },
        mark: { type: "text", baseline: "middle", fontSize: 11 },
        encoding: { text: { field: "label" } },
      }),
    ],
  });
}

/** A step that was timed: what it has to do, and how long it took. */
export interface TimedStep {
  /** Bytes to read. */
  bytes: number;
  /** Floating-point operations to do. */
  flops: number;
  /** What it took. */
  seconds: number;
  /** What it is called, such as its batch size. */
  name: string;
}

/**
 * Timed steps as {@link rooflineChart} draws them. The first and the last have their names beside them.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { rooflinePoints } from "../chart.ts";
 *
 * const [point] = rooflinePoints([{ bytes: 5e8, flops: 2.5e8, seconds: 0.025, name: "1" }]);
 * assert.deepEqual(point, { intensity: 0.5, flops: 1e10, label: "1" });
 * ```
 */
export function rooflinePoints(steps: readonly TimedStep[]): RooflinePoint[] {
  return steps.map(({ bytes, flops, seconds, name }, i) => ({
    intensity: flops / bytes,
    flops: flops / seconds,
    label: i === 0 || i === steps.length - 1 ? name : undefined,
  }));
}

/** Where a label may stand, in pixels from its point to the right and downwards: the first place that is free. */
const AROUND = [[0, 13], [-11, 0], [0, -13], [11, 0], [-11, 13], [11, 13], [-11, -13], [11, -13], [0, 26], [0, -26]];

/** The labels of points, each beside its own, clear of the other points and labels. */
function placeLabels(points: readonly Measured[], xDomain: readonly number[], yDomain: readonly number[]): Measured[] {
  const [xScale, yScale] = [
    plot.width / Math.log(xDomain[1] / xDomain[0]),
    plot.height / Math.log(yDomain[1] / yDomain[0]),
  ];
  const pixels = ({ intensity, billions }: Measured) => [Math.log(intensity) * xScale, -Math.log(billions) * yScale];
  const taken = points.map((point) => ({ at: pixels(point), half: 4 })); // half of the width
  return points.filter(({ label }) => label).map((point) => {
    const [x, y] = pixels(point), half = 3.5 * point.label.length;
    const free = ([right, down]: number[]) =>
      taken.every(({ at, half: other }) =>
        Math.abs(at[0] - x - Math.sign(right) * half - right) > half + other || Math.abs(at[1] - y - down) > 11
      );
    const [right, down] = AROUND.find(free) ?? AROUND[0], shift = Math.sign(right) * half + right;
    taken.push({ at: [x + shift, y + down], half });
    return {
      ...point,
      intensity: point.intensity * Math.exp(shift / xScale),
      billions: point.billions * Math.exp(-down / yScale),
    };
  });
}

interface Ridge {
  intensity: number;
  billions: number;
}

/** Whether two roofs are one: it has one name. */
function sameRidge(a: Ridge, b: Ridge): boolean {
  return a.intensity === b.intensity && a.billions === b.billions;
}

/** How many of the ridges before this one are in the place where its name would stand. */
function overlapping(ridges: readonly Ridge[], index: number): number {
  const near = (a: number, b: number) => Math.abs(Math.log(a / b)) < Math.log(1.8);
  const { intensity, billions } = ridges[index];
  return ridges.slice(0, index).filter((ridge) => near(ridge.intensity, intensity) && near(ridge.billions, billions))
    .length;
}

function roofNumbers({ bandwidth, flops }: RooflineSeries): number[] {
  return [bandwidth, flops];
}

function inWords({ name, bandwidth, flops, points }: RooflineSeries): string {
  const speed = (value: number) => `${formatNumber(value / 1e9)} GFLOP/s`;
  const perByte = (value: number) => `${formatNumber(value)} FLOP per byte`;
  const measured = points.map(({ intensity, flops, label }) =>
    `${label ? `${label}: ` : ""}${speed(flops)} at ${perByte(intensity)}`
  );
  const roof = `at most ${formatNumber(bandwidth / 1e9)} GB/s and ${speed(flops)}, ridge point at ${
    perByte(flops / bandwidth)
  }`;
  return `${name}: ${[roof, ...measured].join("; ")}.`;
}
