/** Which rows share a rectangle: few rectangles, with little in them that nobody needs. */

/**
 * Puts rows that need so many slots into groups, each of which gets as many slots as its neediest row: a group of its own
 * costs as much as `groupCost` slots attended to in vain. Returns the rows of each group, those with few slots first.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { partition } from "./partition.ts";
 *
 * assert.deepEqual(partition([16, 1024, 32, 16], 256), [[0, 3, 2], [1]]);
 * assert.deepEqual(partition([16, 1024, 32, 16], Infinity), [[0, 3, 2, 1]]);
 * ```
 */
export function partition(needs: readonly number[], groupCost: number): number[][] {
  const groups: { rows: number[]; slots: number }[] = [];
  for (const row of [...needs.keys()].sort((a, b) => needs[a] - needs[b])) {
    const last = groups.at(-1);
    if (last?.slots === needs[row]) last.rows.push(row);
    else groups.push({ rows: [row], slots: needs[row] });
  }
  while (groups.length > 1) { // join the two that lose least by it
    const loss = (i: number) => groups[i].rows.length * (groups[i + 1].slots - groups[i].slots);
    let best = 0;
    for (let i = 1; i + 1 < groups.length; i++) if (loss(i) < loss(best)) best = i;
    if (loss(best) > groupCost) break;
    const [lower] = groups.splice(best, 1);
    groups[best] = { rows: [...lower.rows, ...groups[best].rows], slots: groups[best].slots };
  }
  return groups.map(({ rows }) => rows);
}
