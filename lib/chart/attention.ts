/** Pictures of attention: who may see whom, and who looks where, in every head of a model at once. */

import { labels, tokenGrid, visible } from "./grid.ts";
import { type Chart, type ChartOptions, makeChart } from "./specification.ts";

/** What a {@link visibilityGrid} shows. */
export interface VisibilityOptions extends ChartOptions {
  /** The row's tokens, padding among them. */
  tokens: readonly string[];
  /** The row of the attention mask: 1 for a token, 0 for padding. */
  attentionMask: readonly number[];
  /** [T, T]: whether a query (row) may see a key (column); an earlier token that may not be seen is of another text. */
  visible: readonly (readonly boolean[])[];
}

/**
 * Who may see whom in one row of a batch: a line for each token that looks, a column for each that may be looked at.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { visibilityGrid } from "../chart.ts";
 *
 * const visible = [[false, false], [false, true]];
 * const chart = visibilityGrid({ title: "Two cells", tokens: ["pad", " ever"], attentionMask: [0, 1], visible });
 * assert.equal(chart.description, "Two cells. pad: padding (hidden), later (hidden). ·ever: padding (hidden), seen.");
 * ```
 */
export function visibilityGrid({ tokens, attentionMask, visible: sight, ...options }: VisibilityOptions): Chart {
  const seen = "may be seen", hidden = "hidden";
  return tokenGrid({
    ...options,
    kinds: [seen, hidden],
    columns: [...tokens],
    rows: sight.map((line, query) => ({
      label: visible(tokens[query]),
      cells: line.map((sees, key) =>
        sees
          ? { text: "seen", kind: seen }
          : { text: key > query ? "later" : attentionMask[key] ? "other" : "padding", kind: hidden }
      ),
    })),
  });
}

/** What {@link attentionHeads} shows. */
export interface AttentionHeadsOptions extends ChartOptions {
  /** T tokens. */
  tokens: readonly string[];
  /** [layer][head][T][T]: how each query (third) spreads its attention over the keys (fourth). */
  weights: readonly (readonly (readonly (readonly number[])[])[])[];
}

/**
 * All heads of a model as small maps, a line of them for each layer: queries from top to bottom, keys from left to right,
 * the darker the more attention. Few tokens stand beside the maps. In words: where the last token of each head looks most.
 */
export function attentionHeads({ title, subtitle, tokens, weights }: AttentionHeadsOptions): Chart {
  const values = weights.flatMap((heads, layer) =>
    heads.flatMap((map, head) =>
      map.flatMap((line, query) => line.map((weight, key) => ({ layer, head, query, key, weight: round(weight) })))
    )
  );
  const names = tokens.map(visible);
  const words = weights.map((heads, layer) => {
    const favourites = heads.map((map) => {
      const last = map.at(-1)!;
      return names[last.indexOf(Math.max(...last))];
    });
    return `Layer ${layer}: ${favourites.join(", ")}.`;
  });
  const step = Math.max(2, Math.min(12, Math.floor(90 / tokens.length)));
  const axis = step < 10 ? null : { ...labels(names), title: null, labelFontSize: 9, labelPadding: 3 }; // no room
  const position = (field: string, more = {}) => ({ field, type: "ordinal", axis: axis && { ...axis, ...more } });
  const header = (what: string) => ({
    title: null,
    labelExpr: `"${what} " + datum.value`,
    labelColor: "#57606a",
    labelFontSize: 12,
    labelPadding: 4,
  });
  return makeChart(`${title}. Where ${names.at(-1)} looks most, by head. ${words.join(" ")}`, {
    title: { text: title, subtitle },
    data: { values },
    spacing: 10,
    facet: {
      row: { field: "layer", type: "ordinal", header: header("layer") },
      column: { field: "head", type: "ordinal", header: header("head") },
    },
    spec: {
      width: { step },
      height: { step },
      mark: { type: "rect", stroke: "#ffffff", strokeWidth: 0.5 },
      encoding: {
        x: position("key", { labelAngle: -90 }),
        y: position("query"),
        fill: {
          field: "weight",
          type: "quantitative",
          legend: null,
          scale: { domain: [0, 1], range: ["#f1f7fc", "#0072b2", "#00304d"] },
        },
      },
    },
  });
}

/** Enough for a shade, and a tenth of the characters. */
function round(weight: number): number {
  return Number(weight.toFixed(3));
}
