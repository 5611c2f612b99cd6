/** Throughput against latency: what a larger batch gains, and what it costs. */

import { logTicks } from "./by_batch_size.ts";
import { type Chart, type ChartOptions, formatNumber, makeChart } from "./specification.ts";

/** One batch size: tokens per second, and seconds per token. */
export interface TradeOffPoint {
  /** Prompts generated together. */
  batchSize: number;
  /** New tokens of all rows per second. */
  throughput: number;
  /** Seconds per new token of a row. */
  latency: number;
}

/** What a {@link tradeOffChart} shows. */
export interface TradeOffOptions extends ChartOptions {
  /** The batch size to point out. */
  marked?: number;
}

/**
 * Throughput over latency, a point for each batch size, both logarithmic: straight up is free, to the right is paid for.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { tradeOffChart } from "../chart.ts";
 *
 * const points = [{ batchSize: 1, throughput: 20, latency: 0.05 }, { batchSize: 8, throughput: 80, latency: 0.1 }];
 * const chart = tradeOffChart(points, { title: "Four times the tokens, twice the wait", marked: 8 });
 * assert.match(chart.description, /wait\. Throughput at latency: batch 1: 20 tok\/s at 50 ms, batch 8: 80 tok\/s at 100 ms\./);
 * ```
 */
export function tradeOffChart(points: readonly TradeOffPoint[], { title, subtitle, marked }: TradeOffOptions): Chart {
  const bad = points.find(({ latency, throughput }) => !(latency > 0 && throughput > 0));
  if (bad || !points.length) {
    throw new RangeError(`Cannot chart the trade-off: ${bad ? JSON.stringify(bad) : "there are no points"}.`);
  }
  const values = points.map(({ batchSize, throughput, latency }) => ({
    batchSize,
    throughput,
    milliseconds: latency * 1000,
    text: `batch ${batchSize}`,
    marked: batchSize === marked,
  }));
  const words = values.map(({ text, throughput, milliseconds }) =>
    `${text}: ${formatNumber(throughput)} tok/s at ${formatNumber(milliseconds)} ms`
  );
  const axis = (field: "milliseconds" | "throughput", title: string, margin: number) => {
    const all = values.map((value) => value[field]);
    const domain = [Math.min(...all) / 1.2, Math.max(...all) * margin];
    return {
      field,
      type: "quantitative",
      title: `${title}, log scale)`,
      scale: { type: "log", domain, nice: false },
      axis: { values: logTicks(domain), format: ",~r" },
    };
  };
  const color = { condition: { test: "datum.marked", value: "#d55e00" }, value: "#0072b2" };
  return makeChart(`${title}. Throughput at latency: ${words.join(", ")}.`, {
    title: { text: title, subtitle },
    width: 600,
    height: 300,
    data: { values },
    encoding: {
      x: axis("milliseconds", "Latency (ms per token", 1.5), // room for the last point's name
      y: axis("throughput", "Throughput (tokens/s", 1.2),
    },
    layer: [
      {
        mark: { type: "line", strokeWidth: 2, color: "#0072b2" },
        encoding: { order: { field: "batchSize", type: "quantitative" } },
      },
      {
        mark: { type: "point", filled: true, opacity: 1 },
        encoding: { color, size: { condition: { test: "datum.marked", value: 160 }, value: 60 } },
      },
      {
        mark: { type: "text", align: "left", baseline: "top", dx: 8, dy: 3, fontSize: 12, fontWeight: "bold" },
        encoding: { text: { field: "text" }, color },
      },
    ],
  });
}
