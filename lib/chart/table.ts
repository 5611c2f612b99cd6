/** Tables in a notebook: the same rows as Markdown, and as plain text for readers who see no Markdown. */

import { table } from "../util/table.ts";
import { type Bundle, display } from "./show.ts";
import { formatNumber } from "./specification.ts";

/** A row by its columns' names; all rows have the same ones. Numbers are written with three digits, `85.74` as `85.7`. */
export type TableRow = Record<string, string | number>;

/**
 * Shows rows as a table, in the middle of a cell or at its end: `await showTable(rows)`. Outside notebooks it is printed.
 *
 * @example
 * ```ts
 * import { showTable } from "../chart.ts";
 *
 * await showTable([{ batch: 1, "tok/s": 34 }, { batch: 128, "tok/s": 1482.3 }]);
 * ```
 */
export async function showTable(rows: readonly TableRow[]): Promise<void> {
  await display(tableBundle(rows));
}

/** What {@link showTable} hands to the notebook. */
export function tableBundle(rows: readonly TableRow[]): Bundle {
  if (!rows.length) throw new RangeError("Cannot show a table without rows.");
  const columns = Object.keys(rows[0]);
  const cells = rows.map((row) => columns.map((column) => format(row[column])));
  const numeric = columns.map((_, i) => cells.every((line) => /^[−-]?\d|^–?$/.test(line[i])));
  const line = (texts: string[]) => `| ${texts.map(escape).join(" | ")} |`;
  const rule = `|${numeric.map((right) => right ? "--:" : ":--").join("|")}|`;
  return {
    "text/markdown": [line(columns), rule, ...cells.map(line)].join("\n"),
    "text/plain": table([columns, ...cells]),
  };
}

function format(value: string | number): string {
  return typeof value === "number" ? formatNumber(value) : value;
}

function escape(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}
