/** A number taken apart into the factors that make it, each drawn as a step on a logarithmic scale. */

import { logTicks } from "./by_batch_size.ts";
import { type Chart, type ChartOptions, formatNumber, makeChart } from "./specification.ts";

/** One cause, and by what it multiplies. */
export interface Factor {
  /** The cause, in a few words. */
  name: string;
  /** Above 1 it raises the product, below 1 it lowers it. */
  factor: number;
}

/** What a {@link factorChart} shows. */
export interface FactorChartOptions extends ChartOptions {
  /** What the product is called. */
  total: string;
  /** What the scale counts, with the unit. Default: `Times`. */
  scaleTitle?: string;
}

/**
 * From 1 through each factor to their product: bars that rise are blue, bars that fall are orange.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { factorChart } from "../chart.ts";
 *
 * const factors = [{ name: "free seats", factor: 128 }, { name: "arithmetic", factor: 0.25 }];
 * const chart = factorChart(factors, { title: "Arithmetic takes three quarters", total: "gain" });
 * assert.equal(chart.description, "Arithmetic takes three quarters. free seats: ×128. arithmetic: ÷4. gain: 32x.");
 * ```
 */
export function factorChart(
  factors: readonly Factor[],
  { title, subtitle, total, scaleTitle = "Times" }: FactorChartOptions,
): Chart {
  const bad = factors.find(({ factor }) => !(factor > 0 && Number.isFinite(factor)));
  if (bad || !factors.length) {
    throw new RangeError(`Cannot chart factors: ${bad ? JSON.stringify(bad) : "there are none"}.`);
  }
  let product = 1;
  const bars = factors.map(({ name, factor }) => {
    const from = product, to = product *= factor;
    const text = factor >= 1 ? `×${formatNumber(factor)}` : `÷${formatNumber(1 / factor)}`;
    return { name, from, to, end: Math.max(from, to), text, kind: factor >= 1 ? "raises" : "lowers" };
  });
  const last = {
    name: total,
    from: 1,
    to: product,
    end: Math.max(1, product),
    text: `${formatNumber(product)}x`,
    kind: "total",
  };
  const values = [...bars, last];
  const ends = values.flatMap(({ from, to }) => [from, to]);
  const domain = [Math.min(...ends) / 1.05, Math.max(...ends) * 1.9]; // room for the last bar's text
  const words = values.map(({ name, text }) => `${name}: ${text}.`);
  return makeChart(`${title}. ${words.join(" ")}`, {
    title: { text: title, subtitle },
    width: 480,
    height: { step: 34 },
    data: { values },
    encoding: {
      y: {
        field: "name",
        type: "nominal",
        sort: null,
        title: null,
        scale: { paddingInner: 0.25 },
        axis: { labelLimit: 340, ticks: false, domain: false, labelPadding: 8 },
      },
    },
    layer: [
      {
        mark: { type: "bar", cornerRadius: 2 },
        encoding: {
          x: {
            field: "from",
            type: "quantitative",
            title: `${scaleTitle} (log scale)`,
            scale: { type: "log", domain, nice: false },
            axis: { values: logTicks(domain), format: ",~r" },
          },
          x2: { field: "to" },
          color: {
            field: "kind",
            type: "nominal",
            title: null,
            legend: null, // × and ÷ say it
            scale: { domain: ["raises", "lowers", "total"], range: ["#0072b2", "#d55e00", "#1f2328"] },
          },
        },
      },
      {
        mark: { type: "text", align: "left", dx: 6, fontSize: 12, fontWeight: "bold" },
        encoding: { x: { field: "end", type: "quantitative" }, text: { field: "text" } },
      },
    ],
  });
}
