/**
 * Random numbers by place instead of in sequence: Philox 4×32 with 10 rounds (Salmon et al. 2011, "Parallel random numbers: as
 * easy as 1, 2, 3"). A key and a counter give four words; no state is kept, so any number can be made at any time.
 */

const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57] as const;
const KEY_STEPS = [0x9e3779b9, 0xbb67ae85] as const;
const ROUNDS = 10;

/** Four words (unsigned, 32 bits) for a counter of four words and a key of two. */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [a, b, c, d] = counter, [k, l] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const [highA, lowA] = product(MULTIPLIERS[0], a), [highC, lowC] = product(MULTIPLIERS[1], c);
    [a, b, c, d] = [highC ^ b ^ k, lowC, highA ^ d ^ l, lowA];
    [k, l] = [k + KEY_STEPS[0] | 0, l + KEY_STEPS[1] | 0];
  }
  return [a >>> 0, b >>> 0, c >>> 0, d >>> 0];
}

/** The 64 bits of a product of two words: the high and the low word. */
function product(x: number, y: number): [high: number, low: number] {
  const [x1, x0] = [x >>> 16, x & 0xffff], [y1, y0] = [y >>> 16, y & 0xffff];
  const middle = x1 * y0 + (x0 * y0 >>> 16), carry = x0 * y1 + (middle % 0x10000);
  return [x1 * y1 + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000) | 0, Math.imul(x, y)];
}
