/** Pictures of small matrices: the tokens of a batch with their padding, and attention weights. */

import { type Chart, type ChartOptions, makeChart } from "./specification.ts";

/** One row of a {@link tokenGrid}. */
export interface GridRow {
  /** What stands before it. */
  label: string;
  /** From left to right; rows may differ in length. */
  cells: { text: string; kind: string }[];
}

/** What a {@link tokenGrid} shows. */
export interface TokenGridOptions extends ChartOptions {
  /** From top to bottom. */
  rows: GridRow[];
  /** The kinds of cells, the ordinary one first, then padding, which looks empty. At most four. */
  kinds: string[];
  /** What stands above each column. Default: nothing. */
  columns?: string[];
  /** Pixels; the same in several grids puts their columns in line. Default: what the longest text needs. */
  cellWidth?: number;
}

/** What a {@link heatmap} shows. */
export interface HeatmapOptions extends ChartOptions {
  /** Labels of the rows, for attention the queries. */
  rows: string[];
  /** Labels of the columns, for attention the keys. */
  columns: string[];
  /** [rows, columns], from 0 upwards; null where there is none, as behind a mask. */
  values: (number | null)[][];
  /** What the rows are. Default: `Query`. */
  rowTitle?: string;
  /** What the columns are. Default: `Key`. */
  columnTitle?: string;
  /** The value of the darkest shade; the same in several heatmaps makes them comparable. Default: the greatest. */
  most?: number;
}

/** Kinds of cells differ in lightness and outline, not in hue alone: ordinary, empty, new, special. */
export const cellStyles = [
  { fill: "#0072b2", text: "#ffffff", outline: "#0072b2" },
  { fill: "#f6f8fa", text: "#57606a", outline: "#8c959f" },
  { fill: "#f0b84d", text: "#1f2328", outline: "#f0b84d" },
  { fill: "#1f2328", text: "#ffffff", outline: "#1f2328" },
];

/**
 * Rows of tokens as cells, coloured by kind. Spaces show as `·` and line ends as `↵`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { tokenGrid } from "../chart.ts";
 *
 * const cells = [{ text: "pad", kind: "padding" }, { text: " ever", kind: "token" }];
 * const chart = tokenGrid({ title: "A batch", kinds: ["token", "padding"], rows: [{ label: "row 0", cells }] });
 * assert.equal(chart.description, "A batch. row 0: pad (padding), ·ever.");
 * ```
 */
export function tokenGrid({ title, subtitle, rows, kinds, columns, cellWidth }: TokenGridOptions): Chart {
  const unknown = rows.flatMap(({ cells }) => cells).find(({ kind }) => !kinds.includes(kind));
  if (unknown) {
    throw new RangeError(`Cell "${unknown.text}" is of kind "${unknown.kind}": kinds are ${kinds.join(", ")}.`);
  }
  if (kinds.length > cellStyles.length) {
    throw new RangeError(`A grid tells ${cellStyles.length} kinds apart, not ${kinds.length}.`);
  }
  const values = rows.flatMap(({ cells }, row) =>
    cells.map(({ text, kind }, column) => ({ row, column, text: visible(text), kind }))
  );
  const words = rows.map(({ label, cells }) =>
    `${label}: ${cells.map(({ text, kind }) => visible(text) + (kind === kinds[0] ? "" : ` (${kind})`)).join(", ")}.`
  );
  const longest = Math.max(1, ...values.map(({ text }) => text.length));
  const byKind = (style: keyof (typeof cellStyles)[0]) => ({
    field: "kind",
    title: null,
    scale: { domain: kinds, range: kinds.map((_, i) => cellStyles[i][style]) },
    legend: { values: kinds.filter((kind) => values.some((cell) => cell.kind === kind)) },
  });
  // Conditions, because a scale without a legend would take the others' legend away.
  const inkOnKind = kinds.map((kind, i) => ({
    test: `datum.kind === ${JSON.stringify(kind)}`,
    value: cellStyles[i].text,
  }));
  return makeChart(`${title}. ${words.join(" ")}`, {
    title: { text: title, subtitle },
    width: { step: cellWidth ?? Math.max(34, longest * 8 + 14) },
    height: { step: 32 },
    data: { values },
    encoding: {
      x: {
        field: "column",
        type: "ordinal",
        title: null,
        axis: columns ? { ...labels(columns.map(visible)), orient: "top", labelAngle: -45 } : null,
        scale: { paddingInner: 0.06, paddingOuter: 0.03 },
      },
      y: {
        field: "row",
        type: "ordinal",
        title: null,
        scale: { paddingInner: 0.12 },
        axis: labels(rows.map(({ label }) => label)),
      },
    },
    layer: [
      {
        mark: { type: "rect", cornerRadius: 3, strokeWidth: 1 },
        encoding: { fill: byKind("fill"), stroke: byKind("outline") },
      },
      {
        mark: { type: "text", fontSize: 12, baseline: "middle" },
        encoding: { text: { field: "text" }, color: { condition: inkOnKind, value: cellStyles[0].text } },
      },
    ],
  });
}

/** From nothing to the most. */
export const shades = ["#f1f7fc", "#0072b2", "#00304d"];

/** Ink on a shade for `share` of the most. */
export function inkOn(share: number): string {
  return share > 0.35 ? "#ffffff" : "#1f2328";
}

/** Shades of blue for values from 0 to the greatest, which stand in the cells while they fit. */
export function heatmap(
  { title, subtitle, rows, columns, values, rowTitle = "Query", columnTitle = "Key", most }: HeatmapOptions,
): Chart {
  const darkest = most ?? (Math.max(...values.flat().map((value) => value ?? 0)) || 1);
  const cells = values.flatMap((line, row) =>
    line.map((value, column) => ({ row, column, value, ink: inkOn((value ?? 0) / darkest) }))
  );
  const words = values.map((line, row) => {
    const most = line.reduce<number>((best, value, i) => (value ?? -1) > (line[best] ?? -1) ? i : best, 0);
    const value = line[most];
    const where = value === null ? "nothing" : `most at ${visible(columns[most])}, ${value.toFixed(2)}`;
    return `${visible(rows[row])}: ${where}.`;
  });
  const fits = columns.length <= 14;
  const crowded = fits ? {} : { labelOverlap: "greedy" };
  const step = fits ? 44 : Math.max(8, Math.floor(600 / columns.length));
  return makeChart(
    `${title}. ${rowTitle} by ${columnTitle.toLowerCase()}. ${words.join(" ")}`,
    {
      title: { text: title, subtitle },
      width: { step },
      height: { step: fits ? 32 : step },
      data: { values: cells },
      encoding: {
        x: {
          field: "column",
          type: "ordinal",
          title: columnTitle,
          axis: { ...labels(columns.map(visible)), ...crowded, orient: "top", labelAngle: -45 },
        },
        y: { field: "row", type: "ordinal", title: rowTitle, axis: { ...labels(rows.map(visible)), ...crowded } },
      },
      layer: [
        {
          mark: { type: "rect", stroke: "#ffffff", strokeWidth: fits ? 2 : 0.5, invalid: null },
          encoding: {
            fill: {
              condition: { test: "!isValid(datum.value)", value: "#eaeef2" },
              field: "value",
              type: "quantitative",
              legend: null,
              scale: { domain: [0, darkest], range: shades },
            },
          },
        },
        ...(fits
          ? [{
            transform: [{ filter: "isValid(datum.value)" }],
            mark: { type: "text", fontSize: 11 },
            encoding: {
              text: { field: "value", type: "quantitative", format: ".2f" },
              color: { field: "ink", type: "nominal", scale: null },
            },
          }]
          : []),
      ],
    },
  );
}

/** An axis over positions that shows labels, of which several may be equal. */
export function labels(texts: string[]) {
  const list = JSON.stringify(texts);
  return {
    labelExpr: `${list}[datum.value]`,
    labelLimit: 320,
    ticks: false,
    domain: false,
    labelPadding: 8,
  };
}

/** White space as one sees it: `·` for a space, `↵` for the end of a line, `⇥` for a tab. */
export function visible(text: string): string {
  return text.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}
