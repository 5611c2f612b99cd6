/** What quantities are made of: bars side by side, each a stack of the same parts. */

import { seriesColors } from "./lines.ts";
import { type Chart, type ChartOptions, formatNumber, makeChart, overLines } from "./specification.ts";

/** What {@link stackedBars} shows. */
export interface StackedBarsOptions extends ChartOptions {
  /** What stands below the bars, for the axis. */
  xTitle: string;
  /** What the values are. */
  quantity: string;
  /** Their unit. */
  unit: string;
}

/** One bar. */
export interface StackedBar {
  /** What stands below it. */
  name: string;
  /** Its parts by name, from below upwards, none of them negative. All bars have the same ones. */
  parts: Record<string, number>;
  /** What the whole was measured to be: a mark across the bar, and the number above. Default: the sum of the parts. */
  whole?: number;
}

/**
 * Bars of parts that add up, with the whole above each. Where that was measured by itself, a mark is at its height: parts may
 * come to more or less.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { stackedBars } from "../chart.ts";
 *
 * const bars = [{ name: "1", parts: { reading: 18, calls: 4 } }, { name: "8", parts: { reading: 19, calls: 5 } }];
 * const chart = stackedBars(bars, { title: "Reading is most", xTitle: "Batch size", quantity: "Time", unit: "ms" });
 * assert.equal(
 *   chart.description,
 *   "Reading is most. Time by batch size: 1: 22 ms (reading 18, calls 4); 8: 24 ms (reading 19, calls 5).",
 * );
 * ```
 */
export function stackedBars(
  bars: readonly StackedBar[],
  { title, subtitle, xTitle, quantity, unit }: StackedBarsOptions,
): Chart {
  const names = Object.keys(bars[0]?.parts ?? {});
  const values = bars.flatMap(({ name, parts }) =>
    names.map((part, order) => ({ bar: name, part, value: parts[part], order }))
  );
  const bad = values.find(({ value }) => !(value >= 0 && Number.isFinite(value)));
  if (bad || !values.length) {
    throw new RangeError(`Cannot stack ${quantity.toLowerCase()}: ${bad ? JSON.stringify(bad) : "there are no bars"}.`);
  }
  const totals = bars.map(({ name, parts, whole }) => {
    const sum = names.reduce((sum, part) => sum + parts[part], 0);
    return { bar: name, total: whole ?? sum, top: Math.max(sum, whole ?? 0), measured: whole !== undefined };
  });
  const words = bars.map(({ name, parts }, i) =>
    `${name}: ${formatNumber(totals[i].total)} ${unit} (${
      names.map((part) => `${part} ${formatNumber(parts[part])}`).join(", ")
    })`
  );
  return makeChart(`${title}. ${quantity} by ${xTitle[0].toLowerCase()}${xTitle.slice(1)}: ${words.join("; ")}.`, {
    title: { text: title, subtitle },
    width: 560,
    height: 280,
    data: { values },
    encoding: {
      x: {
        field: "bar",
        type: "ordinal",
        sort: null,
        title: xTitle,
        axis: { labelAngle: 0, ticks: false },
        scale: { paddingInner: 0.25 },
      },
    },
    layer: [
      {
        mark: { type: "bar", stroke: "#ffffff", strokeWidth: 1 },
        encoding: {
          y: {
            field: "value",
            type: "quantitative",
            title: `${quantity} (${unit})`,
            scale: { domain: [0, Math.max(...totals.map(({ top }) => top)) * 1.1], nice: false },
            axis: { format: ",~r", tickCount: 5, minExtent: 46 },
          },
          order: { field: "order", type: "quantitative" },
          color: {
            field: "part",
            type: "nominal",
            title: null,
            scale: { domain: names, range: seriesColors(names.map((name) => ({ name }))) },
            legend: { columns: 2 },
          },
        },
      },
      {
        data: { values: totals.filter(({ measured }) => measured) },
        mark: { type: "tick", thickness: 3, color: "#1f2328" },
        encoding: { y: { field: "total", type: "quantitative" } },
      },
      ...overLines({
        data: { values: totals },
        mark: { type: "text", dy: -8, fontSize: 12, fontWeight: "bold" },
        encoding: {
          y: { field: "top", type: "quantitative" },
          text: { field: "total", type: "quantitative", format: ",.3~r" },
        },
      }),
    ],
  });
}
