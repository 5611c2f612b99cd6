/** Who did what when: a Gantt chart over time. */

import { seriesColors } from "./lines.ts";
import { type Chart, type ChartOptions, formatNumber, makeChart } from "./specification.ts";

/** A stretch of time. */
export interface Span {
  /** Who: the line of the chart that it is drawn in. */
  row: string;
  /** What: it has a colour of its own. */
  kind: string;
  /** When it begins. */
  from: number;
  /** When it ends. */
  to: number;
  /** Stands in it, if there is room. */
  label?: string;
}

/** What a {@link timelineChart} shows. */
export interface TimelineOptions extends ChartOptions {
  /** The unit of the times. */
  unit: string;
  /** Where the axis ends: the same in several charts makes them comparable. Default: where the last span does. */
  length?: number;
}

/**
 * A line for each row, in the order in which they come, with its spans. What is empty was idle.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { timelineChart } from "../chart.ts";
 *
 * const spans = [
 *   { row: "worker 0", kind: "starting", from: 0, to: 2 },
 *   { row: "worker 0", kind: "a block", from: 2, to: 3.5 },
 * ];
 * const chart = timelineChart(spans, { title: "Slow to start", unit: "s" });
 * assert.equal(chart.description, "Slow to start. Until 3.5 s. worker 0: starting 2 s, a block 1.5 s.");
 * ```
 */
export function timelineChart(
  spans: readonly Span[],
  { title, subtitle, unit, length = Math.max(...spans.map(({ to }) => to)) }: TimelineOptions,
): Chart {
  const bad = spans.find(({ from, to }) => !(from >= 0 && to >= from && to < Infinity));
  if (bad || !spans.length) {
    throw new RangeError(`Cannot chart a timeline: ${bad ? JSON.stringify(bad) : "there are no spans"}.`);
  }
  const rows = [...new Set(spans.map(({ row }) => row))], kinds = [...new Set(spans.map(({ kind }) => kind))];
  const words = rows.map((row) => {
    const own = spans.filter((span) => span.row === row);
    const sums = kinds.map((kind) => [kind, own.filter((span) => span.kind === kind)] as const)
      .filter(([, all]) => all.length)
      .map(([kind, all]) => `${kind} ${formatNumber(all.reduce((sum, { from, to }) => sum + to - from, 0))} ${unit}`);
    return `${row}: ${sums.join(", ")}.`;
  });
  const end = Math.max(...spans.map(({ to }) => to));
  const hasRoom = ({ from, to, label = "" }: Span) => label && (to - from) * WIDTH / length > 7 * label.length + 6;
  return makeChart(`${title}. Until ${formatNumber(end)} ${unit}. ${words.join(" ")}`, {
    title: { text: title, subtitle },
    width: WIDTH,
    height: { step: 30 },
    encoding: {
      x: {
        field: "from",
        type: "quantitative",
        title: `Time (${unit})`,
        scale: { domain: [0, length], nice: false },
        axis: { format: ",~r", tickCount: 8 },
      },
      y: {
        field: "row",
        type: "nominal",
        sort: rows,
        title: null,
        axis: { ticks: false, domain: false, labelLimit: 200 },
      },
    },
    layer: [
      {
        data: { values: spans },
        mark: { type: "bar", height: { band: 0.8 }, stroke: "#ffffff", strokeWidth: 0.75 },
        encoding: {
          x2: { field: "to" },
          color: {
            field: "kind",
            type: "nominal",
            title: null,
            scale: { domain: kinds, range: seriesColors(kinds.map((name) => ({ name }))) },
          },
        },
      },
      {
        data: { values: spans.filter(hasRoom).map((span) => ({ ...span, from: (span.from + span.to) / 2 })) },
        mark: { type: "text", fontSize: 11, fontWeight: "bold", color: "#ffffff" },
        encoding: { text: { field: "label" } },
      },
    ],
  });
}

const WIDTH = 560;
