/** Stretches of consecutive things: rows, columns, heads, hidden units. */

/** From the first to before the last. */
export type Range = readonly [start: number, end: number];

/** Divides `count` things into `groups` ranges that differ by `unit` at most and begin at multiples of it. */
export function ranges(count: number, groups: number, unit = 1): Range[] {
  const units = Math.ceil(count / unit), used = Math.max(1, Math.min(groups, units));
  const starts = Array.from({ length: used + 1 }, (_, i) => Math.min(count, Math.floor(units * i / used) * unit));
  return starts.slice(1).map((end, i) => [starts[i], end]);
}
