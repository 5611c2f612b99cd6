/** Lines on two logarithmic axes: what grows by a factor when x does is straight. */

import { logTicks } from "./by_batch_size.ts";
import { checkPoints, drawLines, type LineChartOptions, type LineSeries, named } from "./lines.ts";
import { type Chart, formatNumber } from "./specification.ts";

/**
 * Lines over two logarithmic axes, with a mark at every x that was measured. A value twice as high is always the same
 * distance higher, and a straight line at 45 degrees is proportional to x.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { logLineChart } from "../chart.ts";
 *
 * const points = [{ x: 1, y: 6.8 }, { x: 256, y: 30 }];
 * const chart = logLineChart([{ name: "sum", points }], {
 *   title: "Small arrays measure the call",
 *   xTitle: "Array (MB)",
 *   quantity: "Reading",
 *   unit: "GB/s",
 * });
 * assert.equal(chart.description, "Small arrays measure the call. Reading by array (MB): sum: 1: 6.8 GB/s, 256: 30 GB/s.");
 * ```
 */
export function logLineChart(
  series: LineSeries[],
  { title, subtitle, xTitle, quantity, unit }: LineChartOptions,
): Chart {
  checkPoints(quantity, named(series), ({ x, y }) => x > 0 && y > 0 && Number.isFinite(x) && Number.isFinite(y));
  const all = series.flatMap(({ points }) => points);
  const places = [...new Set(all.map(({ x }) => x))].sort((a, b) => a - b);
  const heights = all.flatMap(({ y, low = y, high = y }) => [low, high]);
  const domain = [Math.min(...heights) / 1.3, Math.max(...heights) * 1.3];
  const margin = Math.max(2, places.at(-1)! / places[0]) ** 0.09; // room for the numbers at both ends
  const lists = series.map(({ name, points }) =>
    `${name}: ${points.map(({ x, y }) => `${formatNumber(x)}: ${formatNumber(y)} ${unit}`.trim()).join(", ")}`
  );
  return drawLines(series, {
    description: `${title}. ${quantity} by ${xTitle[0].toLowerCase()}${xTitle.slice(1)}: ${lists.join("; ")}.`,
    title: { text: title, subtitle },
    x: {
      field: "x",
      type: "quantitative",
      title: `${xTitle}, log scale`,
      scale: { type: "log", base: 2, domain: [places[0] / margin, places.at(-1)! * margin], nice: false },
      axis: { values: places, format: ",~r", grid: false, labelOverlap: "greedy" },
    },
    y: {
      field: "y",
      type: "quantitative",
      title: `${quantity} (${unit ? `${unit}, ` : ""}log scale)`,
      scale: { type: "log", domain, nice: false },
      axis: { format: ",~r", minExtent: 46, values: logTicks(domain) },
    },
    labelledEnds: [0, -1],
  });
}
