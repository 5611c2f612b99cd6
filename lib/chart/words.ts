/** Numbers as they stand in sentences and titles. */

import { formatNumber } from "./specification.ts";

/**
 * How many times as much, to two digits: `16.83` -> `17x`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { ms, percent, times } from "../chart.ts";
 *
 * assert.deepEqual([times(16.83), ms(0.0219), percent(0.053)], ["17x", "21.9 ms", "5.3%"]);
 * ```
 */
export function times(ratio: number): string {
  return `${Number(ratio.toPrecision(2))}x`;
}

/** Seconds as milliseconds: `0.0219` -> `21.9 ms`. */
export function ms(seconds: number): string {
  return `${formatNumber(seconds * 1000)} ms`;
}

/** A share as whole percent, small ones to two digits: `0.981` -> `98%`, `0.053` -> `5.3%`. */
export function percent(share: number): string {
  const value = share * 100;
  return `${Math.abs(value) < 10 ? Number(value.toPrecision(2)) : Math.round(value)}%`;
}

/** In thousands of millions: `30.1e9` bytes per second -> `30.1`, to stand before `GB/s`. */
export function giga(value: number): string {
  return formatNumber(value / 1e9);
}
