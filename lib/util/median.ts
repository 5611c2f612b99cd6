/** The middle of some numbers, and other places among them. */

/**
 * The middle value; of an even number of values the mean of the two in the middle. NaN if there is none.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { median } from "./median.ts";
 *
 * assert.equal(median([10, 1, 2, 3]), 2.5);
 * ```
 */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value below which a share of the values lies, between two of them in proportion. NaN if there is none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const place = share * (sorted.length - 1), below = Math.floor(place);
  return place === below ? sorted[below] ?? NaN : sorted[below] + (place - below) * (sorted[below + 1] - sorted[below]);
}
