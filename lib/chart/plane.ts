/** Two measurements of the same things against each other, as settings change. */

import { logTicks } from "./by_batch_size.ts";
import { checkPoints, named, seriesColors, seriesShapes } from "./lines.ts";
import { type Chart, type ChartOptions, formatNumber, makeChart, overLines } from "./specification.ts";

/** One thing that was measured twice. */
export interface PlanePoint {
  /** The measurement to the right. */
  x: number;
  /** The measurement upwards. */
  y: number;
  /** What stands beside it. */
  label: string;
}

/** Points along which one setting changes. */
export interface PlaneSeries {
  /** What the legend calls it. */
  name: string;
  /** In the order of the setting; a line joins them. */
  points: PlanePoint[];
  /** Draws it grey: something to compare with. */
  muted?: boolean;
}

/** What a {@link planeChart} shows. */
export interface PlaneChartOptions extends ChartOptions {
  /** What is measured to the right. */
  xTitle: string;
  /** What is measured upwards, on a logarithmic axis. */
  yTitle: string;
}

/** Where labels stand, a side for each line: where lines are close, their labels are not in each other's way. */
const LABEL_SIDES = [
  { align: "right", baseline: "bottom", dx: -5, dy: -4 },
  { align: "left", baseline: "top", dx: 5, dy: 4 },
  { align: "left", baseline: "middle", dx: 9, dy: -1 },
  { align: "center", baseline: "bottom", dx: 0, dy: -8 },
];

/**
 * Two measurements against each other, the one upwards logarithmic. Each line goes from one value of a setting to the next,
 * whichever way that leads.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { planeChart } from "../chart.ts";
 *
 * const points = [{ x: 20, y: 3, label: "0.3" }, { x: 97, y: 90, label: "1" }];
 * const chart = planeChart([{ name: "temperature", points }], {
 *   title: "What is new is unlikely",
 *   xTitle: "Different trigrams (%)",
 *   yTitle: "Perplexity",
 * });
 * assert.equal(
 *   chart.description,
 *   "What is new is unlikely. Perplexity by different trigrams (%): temperature: 0.3: 3 at 20, 1: 90 at 97.",
 * );
 * ```
 */
export function planeChart(series: PlaneSeries[], { title, subtitle, xTitle, yTitle }: PlaneChartOptions): Chart {
  const values = named(series).map((point, order) => ({ ...point, order }));
  checkPoints(yTitle, values, ({ x, y }) => Number.isFinite(x) && y > 0 && Number.isFinite(y));
  const xs = values.map(({ x }) => x), ys = values.map(({ y }) => y);
  const margin = 0.06 * (Math.max(...xs) - Math.min(...xs)) || 1;
  const domain = [Math.min(...ys) / 1.3, Math.max(...ys) * 1.3];
  const perSeries = (range: unknown[]) => ({ domain: series.map(({ name }) => name), range });
  const byName = { field: "series", type: "nominal", title: null };
  const words = series.map(({ name, points }) =>
    `${name}: ${points.map(({ x, y, label }) => `${label}: ${formatNumber(y)} at ${formatNumber(x)}`).join(", ")}`
  );
  return makeChart(`${title}. ${yTitle} by ${xTitle[0].toLowerCase()}${xTitle.slice(1)}: ${words.join("; ")}.`, {
    title: { text: title, subtitle },
    width: 600,
    height: 340,
    data: { values },
    encoding: {
      x: {
        field: "x",
        type: "quantitative",
        title: xTitle,
        scale: { domain: [Math.min(...xs) - margin, Math.max(...xs) + margin], nice: false, zero: false },
        axis: { format: ",~r", tickCount: 6 },
      },
      y: {
        field: "y",
        type: "quantitative",
        title: `${yTitle} (log scale)`,
        scale: { type: "log", domain, nice: false },
        axis: { format: ",~r", values: logTicks(domain), minExtent: 46 },
      },
      color: { ...byName, scale: perSeries(seriesColors(series)), legend: { symbolStrokeWidth: 0 } },
    },
    layer: [
      {
        mark: { type: "line", strokeWidth: 2 },
        encoding: { order: { field: "order", type: "quantitative" } },
      },
      {
        mark: { type: "point", filled: true, size: 70, opacity: 1 },
        encoding: {
          shape: { ...byName, scale: perSeries(series.map((_, i) => seriesShapes[i % seriesShapes.length])) },
        },
      },
      ...series.flatMap(({ name }, i) =>
        overLines({
          transform: [{ filter: { field: "series", equal: name } }],
          mark: { type: "text", ...LABEL_SIDES[i % LABEL_SIDES.length], fontSize: 11 },
          encoding: { text: { field: "label", type: "nominal" } },
        })
      ),
    ],
  });
}
