/** Lines through measurements, on axes of any kind. */

import { type Chart, type ChartOptions, formatNumber, makeChart, overLines } from "./specification.ts";

/** One measurement of a {@link lineChart}. */
export interface LinePoint {
  /** Where it was taken. */
  x: number;
  /** The measurement, where there are repeats their median. */
  y: number;
  /** The least of the repeats. */
  low?: number;
  /** The greatest of the repeats. */
  high?: number;
}

/** A named line of a {@link lineChart}. */
export interface LineSeries {
  /** What the legend calls it. */
  name: string;
  /** By rising x. */
  points: LinePoint[];
  /** Draws it grey and dashed: something to compare with, not what the chart is about. */
  muted?: boolean;
}

/** What a {@link lineChart} shows. */
export interface LineChartOptions extends ChartOptions {
  /** What x is, with its unit. */
  xTitle: string;
  /** What y is. */
  quantity: string;
  /** The unit of y. */
  unit: string;
}

/**
 * Lines over two linear axes that begin at zero: what doubles is twice as high. A line of few points shows them.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { lineChart } from "../chart.ts";
 *
 * const points = [{ x: 8, y: 45 }, { x: 64, y: 90 }, { x: 512, y: 700 }];
 * const chart = lineChart([{ name: "without a cache", points }], {
 *   title: "Longer texts, longer steps",
 *   xTitle: "Tokens so far",
 *   quantity: "Time of one step",
 *   unit: "ms",
 * });
 * assert.equal(
 *   chart.description,
 *   "Longer texts, longer steps. Time of one step by tokens so far: without a cache: 8: 45 ms, 64: 90 ms, 512: 700 ms.",
 * );
 * ```
 */
export function lineChart(series: LineSeries[], { title, subtitle, xTitle, quantity, unit }: LineChartOptions): Chart {
  checkPoints(quantity, named(series), ({ x, y }) => x >= 0 && y >= 0 && Number.isFinite(x) && Number.isFinite(y));
  const all = series.flatMap(({ points }) => points);
  const right = Math.max(...all.map(({ x }) => x)), top = Math.max(...all.map(({ y, high = y }) => Math.max(y, high)));
  const lists = series.map(({ name, points }) =>
    `${name}: ${
      thinned(points).map(({ x, y }) => `${formatNumber(x)}: ${formatNumber(y)}${unit && ` ${unit}`}`).join(", ")
    }`
  );
  return drawLines(series, {
    description: `${title}. ${quantity} by ${xTitle.toLowerCase()}: ${lists.join("; ")}.`,
    title: { text: title, subtitle },
    x: {
      field: "x",
      type: "quantitative",
      title: xTitle,
      scale: { domain: [0, right * 1.1], nice: false }, // room for the numbers at the ends
      axis: { format: ",~r", grid: false, tickCount: 8 },
    },
    y: {
      field: "y",
      type: "quantitative",
      title: unit ? `${quantity} (${unit})` : quantity,
      scale: { domain: [0, top * 1.1 || 1], nice: false },
      axis: { format: ",~r", minExtent: 46, tickCount: 5 },
    },
    labelledEnds: [-1],
  });
}

/** As many points as one listens to: a few of many, the first and the last among them. */
function thinned<T>(points: readonly T[], most = 12): T[] {
  if (points.length <= most) return [...points];
  return Array.from({ length: most }, (_, i) => points[Math.round(i * (points.length - 1) / (most - 1))]);
}

/** Throws a RangeError that names the first point that an axis cannot hold. */
export function checkPoints<P>(quantity: string, points: readonly P[], holds: (point: P) => boolean): void {
  const bad = points.find((point) => !holds(point));
  if (!bad && points.length) return;
  throw new RangeError(
    `Cannot chart ${quantity.toLowerCase()}: ${bad ? JSON.stringify(bad) : "there are no points"}.`,
  );
}

/** The points of all lines, each with its line's name. */
export function named<P>(series: readonly { name: string; points: readonly P[] }[]): ({ series: string } & P)[] {
  return series.flatMap(({ name, points }) => points.map((point) => ({ series: name, ...point })));
}

/** An axis in Vega-Lite's terms, with its domain laid down. */
interface Axis {
  field: string;
  scale: { type?: "log" | "linear"; domain: number[] } & Record<string, unknown>;
  [property: string]: unknown;
}

/** What {@link drawLines} needs besides the lines. */
export interface Drawing {
  /** The chart in words. */
  description: string;
  /** What stands above it. */
  title: { text: string; subtitle?: string };
  /** The axis on the ground; its field is one of the points'. */
  x: Axis;
  /** The axis on the left. */
  y: Axis;
  /** Which ends of the lines show their number: 0 the first point, -1 the last. */
  labelledEnds: number[];
}

const plot = { width: 600, height: 260 };
/** More points than this would run together. */
const MOST_MARKS = 24;
/** Okabe and Ito's colours: the colour-blind can tell them apart, and shapes help. */
const colors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/** The points' shapes, in the order of the colours. */
export const seriesShapes = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"];

/** Draws lines whose points carry the fields of both axes, and maybe `low` and `high`. */
export function drawLines<P extends object>(
  series: readonly { name: string; muted?: boolean; dashed?: boolean; points: readonly P[] }[],
  { description, title, x, y, labelledEnds }: Drawing,
): Chart {
  const perSeries = (range: unknown[]) => ({ domain: series.map(({ name }) => name), range });
  const byName = { field: "series", title: null, legend: series.length > 1 ? { symbolStrokeWidth: 0 } : null };
  const marked = series.filter(({ points }) => points.length <= MOST_MARKS).map(({ name }) => name);
  const lineLegend = marked.length || series.length < 2 ? {} : { legend: { symbolType: "stroke" } };
  return makeChart(description, {
    title,
    ...plot,
    data: { values: named(series) },
    encoding: { x, y, color: { ...byName, scale: perSeries(seriesColors(series)), ...lineLegend } },
    layer: [
      {
        mark: { type: "line", strokeWidth: 2 },
        encoding: {
          strokeDash: {
            ...byName,
            scale: perSeries(series.map(({ muted, dashed }) => muted || dashed ? [5, 4] : [1, 0])),
            ...lineLegend,
          },
        },
      },
      {
        transform: [{ filter: "isValid(datum.low) && isValid(datum.high)" }],
        mark: { type: "rule", strokeWidth: 6, opacity: 0.35 },
        encoding: { y: { field: "low", type: "quantitative" }, y2: { field: "high" } },
      },
      ...marked.length
        ? [{
          transform: [{ filter: { field: "series", oneOf: marked } }],
          mark: { type: "point", filled: true, size: 60, opacity: 1 },
          encoding: {
            shape: { ...byName, scale: perSeries(series.map((_, i) => seriesShapes[i % seriesShapes.length])) },
          },
        }]
        : [],
      ...labelledEnds.flatMap((end) => {
        const labels = endLabels(series, end, x.field, y), beside = { align: end ? "left" : "right", dx: end ? 9 : -9 };
        return [true, false].flatMap((outermost) => {
          const values = labels.filter((label) => label.outermost === outermost);
          const place = outermost ? beside : { dy: -13 }; // above, where other lines go on
          return values.length === 0 ? [] : overLines({
            data: { values },
            mark: { type: "text", ...place, fontSize: 12, fontWeight: "bold" },
            encoding: { y: { field: "at", type: "quantitative" }, text: { field: "text" } },
          });
        });
      }),
    ],
  });
}

/** The numbers at one end of the lines. Lines that end at the same place share it. */
function endLabels<P extends object>(
  series: readonly { name: string; points: readonly P[] }[],
  end: number,
  place: string,
  y: Axis,
) {
  const placeOf = (points: readonly P[]) => (points.at(end) as Record<string, number> | undefined)?.[place];
  const places = [...new Set(series.map(({ points }) => placeOf(points) ?? NaN))];
  const edge = (end ? Math.max : Math.min)(...places);
  return places.flatMap((one) =>
    moveApart(series.filter(({ points }) => placeOf(points) === one), end, y)
      .map((label) => ({ ...label, outermost: one === edge }))
  );
}

/** Numbers at one place, moved apart where they would cover each other, and kept within the axis. */
function moveApart<P extends object>(
  series: readonly { name: string; points: readonly P[] }[],
  end: number,
  { field, scale: { type, domain: [low, high] } }: Axis,
) {
  const [to, from] = type === "log" ? [Math.log, Math.exp] : [Number, Number];
  const gap = 14 / plot.height * (to(high) - to(low));
  let free = -Infinity, ceiling = to(high);
  const labels = series
    .filter(({ points }) => points.length > (end ? 0 : 1)) // a single point needs one label
    .map(({ name, points }) => ({ ...points.at(end)!, series: name }))
    .map((point) => ({ ...point, value: (point as unknown as Record<string, number>)[field] }))
    .sort((a, b) => a.value - b.value)
    .map(({ value, ...rest }) => {
      const at = Math.max(to(value), free);
      free = at + gap;
      return { ...rest, at, text: formatNumber(value) };
    });
  return labels.reverse().map((label) => { // back down from the top, above which is the legend
    const at = Math.min(label.at, ceiling);
    ceiling = at - gap;
    return { ...label, at: from(at) };
  });
}

/** A colour for each line; grey for those that are muted. */
export function seriesColors(series: readonly { name: string; muted?: boolean }[]): string[] {
  let next = 0;
  return series.map(({ muted }) => muted ? "#6e7781" : colors[next++ % colors.length]);
}
