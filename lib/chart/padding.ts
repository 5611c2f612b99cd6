/** Pictures of batches: what stands where, which cells are padding, and how much of the work that is. */

import { type Batch, longest, paddingShare, positionIds } from "../tokenizer/batch.ts";
import { tokenGrid } from "./grid.ts";
import { type Chart, type ChartOptions, formatNumber, makeChart, stackCharts } from "./specification.ts";

/** What these pictures need of a tokenizer. */
export interface TokenNames {
  /** How one token reads in a picture. */
  tokenToText(id: number): string;
}

/** What a {@link batchGrid} shows. */
export interface BatchGridOptions extends ChartOptions {
  /** For each row the tokens that were generated after its prompt: they stand on the right, in a colour of their own. */
  generated?: readonly (readonly number[])[];
  /** Marks the last column, from which the next tokens are read. Not together with `generated`. */
  markLast?: boolean;
  /** Pixels; the same in several grids puts their columns in line. */
  cellWidth?: number;
}

/**
 * The tokens of a batch, row by row, with its padding.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { batchGrid } from "../chart.ts";
 *
 * const names = { tokenToText: (id: number) => `word ${id}` };
 * const batch = { inputIds: [[1, 2], [0, 3]], attentionMask: [[1, 1], [0, 1]] };
 * const chart = batchGrid(batch, names, { title: "Two prompts" });
 * assert.equal(chart.description, "Two prompts. row 0: word·1, word·2. row 1: pad (padding), word·3.");
 * ```
 */
export function batchGrid(
  { inputIds, attentionMask }: Batch,
  names: TokenNames,
  { generated, markLast = false, ...options }: BatchGridOptions,
): Chart {
  const last = markLast ? longest(inputIds) - 1 : -1;
  const rows = inputIds.map((ids, row) => ({
    label: `row ${row}`,
    cells: [
      ...ids.map((id, i) => {
        const real = attentionMask[row][i] === 1;
        const kind = i === last ? (real ? READ : READ_PADDING) : real ? TOKEN : PADDING;
        return { text: real ? names.tokenToText(id) : "pad", kind };
      }),
      ...(generated?.[row] ?? []).map((id) => ({ text: names.tokenToText(id), kind: NEW })),
    ],
  }));
  const kinds = [TOKEN, PADDING, ...generated ? [NEW] : markLast ? [READ, READ_PADDING] : []];
  return tokenGrid({ ...options, rows, kinds });
}

/**
 * A batch as the model gets it: tokens, attention mask and position ids, one below the other with their columns in line.
 *
 * @example
 * ```ts
 * import { padBatch, positionIds } from "../tokenizer/batch.ts";
 * import { paddingGrids, show } from "../chart.ts";
 *
 * const batch = padBatch([[1, 2, 3], [4]], { padTokenId: 0 });
 * await show(paddingGrids(batch, { tokenToText: (id) => `word ${id}` }));
 * ```
 */
export function paddingGrids(batch: Batch, names: TokenNames): Chart {
  const { inputIds, attentionMask } = batch;
  const cells = inputIds.length * longest(inputIds), empty = cells - attentionMask.flat().filter(Boolean).length;
  const real = inputIds.flatMap((ids, row) => ids.filter((_, i) => attentionMask[row][i] === 1));
  const cellWidth = Math.max(44, ...real.map((id) => names.tokenToText(id).length * 8 + 14));
  const numbers = (title: string, values: number[][]) =>
    tokenGrid({
      title,
      cellWidth,
      kinds: [TOKEN, PADDING],
      rows: values.map((row, i) => ({
        label: `row ${i}`,
        cells: row.map((value, j) => ({ text: formatSigned(value), kind: attentionMask[i][j] ? TOKEN : PADDING })),
      })),
    });
  return stackCharts(
    batchGrid(batch, names, { title: `Tokens: ${empty} of ${cells} cells are padding`, cellWidth }),
    numbers("Attention mask: 1 where a token is real", attentionMask),
    numbers("Position ids: cumulative sum of the mask, minus 1", positionIds(attentionMask)),
  );
}

/**
 * Several batches as bars, a prompt a line: real tokens, and the padding before them that is computed all the same.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { padBatch } from "../tokenizer/batch.ts";
 * import { paddingBars } from "../chart.ts";
 *
 * const batch = padBatch([[1, 2, 3], [4]], { padTokenId: 0 });
 * const chart = paddingBars([batch], { title: "A third is padding" });
 * assert.equal(chart.description, "A third is padding. batch 0: 2 prompts of 1 to 3 tokens, 33.3% padding.");
 * ```
 */
export function paddingBars(batches: readonly Batch[], { title, subtitle }: ChartOptions): Chart {
  const values: { kind: string; from: number; to: number; top: number; bottom: number }[] = [];
  const centres: number[] = [], words: string[] = [];
  let top = 0;
  for (const [i, batch] of batches.entries()) {
    const first = top, width = longest(batch.inputIds);
    const lengths = batch.attentionMask.map((mask) => mask.filter(Boolean).length);
    for (const length of lengths) {
      const line = { top: top + 0.08, bottom: top + 0.92 };
      if (length < width) values.push({ kind: PADDING, from: 0, to: width - length, ...line });
      values.push({ kind: TOKEN, from: width - length, to: width, ...line });
      top++;
    }
    centres.push((first + top) / 2);
    const share = formatNumber(100 * paddingShare(batch));
    words.push(
      `batch ${i}: ${lengths.length} prompts of ${Math.min(...lengths)} to ${width} tokens, ${share}% padding.`,
    );
    top += 0.8; // a gap between batches
  }
  const byKind = (range: string[]) => ({ field: "kind", title: null, scale: { domain: [TOKEN, PADDING], range } });
  return makeChart(`${title}. ${words.join(" ")}`, {
    title: { text: title, subtitle },
    width: 560,
    height: Math.max(60, Math.round(top * 8)),
    data: { values },
    mark: { type: "rect", strokeWidth: 0.5 },
    encoding: {
      x: {
        field: "from",
        type: "quantitative",
        title: "Tokens of a row",
        scale: { nice: false },
        axis: { tickCount: 8 },
      },
      x2: { field: "to" },
      y: {
        field: "top",
        type: "quantitative",
        title: null,
        scale: { reverse: true, domain: [0, top], nice: false },
        axis: {
          values: centres,
          labelExpr: `"batch " + indexof(${JSON.stringify(centres)}, datum.value)`,
          grid: false,
          ticks: false,
          domain: false,
        },
      },
      y2: { field: "bottom" },
      fill: byKind(["#0072b2", "#f6f8fa"]),
      stroke: byKind(["#0072b2", "#8c959f"]),
    },
  });
}

const TOKEN = "token", PADDING = "padding", NEW = "generated";
const READ = "last column: the next token is read here", READ_PADDING = "read, but padding";

function formatSigned(value: number): string {
  return value < 0 ? `−${-value}` : String(value);
}
