/** Plain-text tables. */

/** Rows as text, columns aligned on the right. The first row is the heading. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const [heading, ...body] = rows.map((row) => row.map((cell, column) => cell.padStart(widths[column])).join("  "));
  return [heading, "─".repeat(heading.length), ...body].join("\n");
}
