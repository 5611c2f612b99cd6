/** One quantity of several things: a bar for each, one below the other, with its number. */

import { type Chart, type ChartOptions, formatNumber, makeChart } from "./specification.ts";

/** What a {@link barChart} shows. */
export interface BarChartOptions extends ChartOptions {
  /** What the values are. */
  quantity: string;
  /** Their unit. */
  unit: string;
}

/**
 * Horizontal bars from zero, in the order given; the first is what the chart is about, the others are grey.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { barChart } from "./bars.ts";
 *
 * const bars = [{ name: "continuous", value: 500 }, { name: "static", value: 200 }];
 * const chart = barChart(bars, { title: "2.5x", quantity: "Throughput", unit: "tok/s" });
 * assert.equal(chart.description, "2.5x. Throughput: continuous: 500 tok/s; static: 200 tok/s.");
 * ```
 */
export function barChart(
  bars: readonly { name: string; value: number }[],
  { title, subtitle, quantity, unit }: BarChartOptions,
): Chart {
  const bad = bars.find(({ value }) => !(value >= 0 && Number.isFinite(value)));
  if (bad || !bars.length) {
    throw new RangeError(`Cannot chart ${quantity.toLowerCase()}: ${bad ? JSON.stringify(bad) : "there are no bars"}.`);
  }
  const words = bars.map(({ name, value }) => `${name}: ${formatNumber(value)} ${unit}`).join("; ");
  const y = { field: "name", type: "nominal", sort: null, title: null, axis: { ticks: false, labelLimit: 300 } };
  const domain = [0, Math.max(...bars.map(({ value }) => value)) * 1.15 || 1]; // room for the numbers
  return makeChart(`${title}. ${quantity}: ${words}.`, {
    title: { text: title, subtitle },
    width: 460,
    height: { step: 30 },
    data: { values: bars.map((bar, i) => ({ ...bar, first: i === 0 })) },
    encoding: { y, x: { field: "value", type: "quantitative", title: `${quantity} (${unit})`, scale: { domain } } },
    layer: [
      {
        mark: { type: "bar", height: { band: 0.7 } },
        encoding: { color: { condition: { test: "datum.first", value: "#0072b2" }, value: "#6e7781" } },
      },
      {
        mark: { type: "text", align: "left", dx: 6, fontSize: 12 },
        encoding: { text: { field: "value", type: "quantitative", format: ",.3~r" } },
      },
    ],
  });
}
