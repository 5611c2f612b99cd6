/** Random numbers that a seed repeats: for tests, for sampling, and for models made with random weights. */

/**
 * Uniform numbers in [0, 1), the same ones for the same whole-number seed (Mulberry32).
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { seededRandom } from "./random.ts";
 *
 * const dice = seededRandom(1), again = seededRandom(1);
 * assert.equal(Math.ceil(6 * dice()), Math.ceil(6 * again()));
 * ```
 */
export function seededRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Normal numbers with mean 0 and standard deviation 1, the same ones for the same seed (Box–Muller). */
export function seededNormal(seed: number): () => number {
  const uniform = seededRandom(seed);
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/**
 * Fills `array` with normal numbers of mean 0 and standard deviation `std`: a draw from a table of 65,536 normal
 * numbers for each, because a whole model wants hundreds of millions of them.
 */
export function fillNormal(array: Float32Array, seed: number, std: number): void {
  const table = Float32Array.from(normals ??= normalTable(), (value) => value * std);
  let state = Math.floor(seededRandom(seed)() * 2 ** 32) || 1; // xorshift never leaves 0
  for (let i = 0; i < array.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    array[i] = table[state >>> 16];
  }
}

let normals: Float64Array | undefined;

/** Box–Muller on evenly spread radii and angles (steps of the golden ratio): the mean is 0 and the deviation 1. */
function normalTable(size = 2 ** 16): Float64Array {
  const golden = (Math.sqrt(5) - 1) / 2;
  return Float64Array.from(
    { length: size },
    (_, i) => Math.sqrt(-2 * Math.log((i + 0.5) / size)) * Math.cos(2 * Math.PI * golden * i),
  );
}
