/** The random number of each token: one, made from what names the token, so that no other row or step has a part in it. */

import { philox } from "../util/philox.ts";

/**
 * The random number for a token of an answer, uniform in [0, 1) in steps of 2⁻²⁴, so that float32 holds it. `answer` counts
 * the answers to one prompt, `token` the tokens of the answer, both from 0.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { uniformOf } from "./uniform.ts";
 *
 * assert.equal(uniformOf(7, 0, 3), uniformOf(7, 0, 3));
 * assert.notEqual(uniformOf(7, 0, 3), uniformOf(7, 1, 3));
 * ```
 */
export function uniformOf(seed: number, answer: number, token: number): number {
  const [word] = philox([token, answer, 0, 0], [seed | 0, Math.floor(seed / 2 ** 32) | 0]);
  return (word >>> 8) / 2 ** 24;
}
