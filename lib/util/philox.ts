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
    const highA = highWord(MULTIPLIERS[0], a), lowA = Math.imul(MULTIPLIERS[0], a);
    const highC = highWord(MULTIPLIERS[1], c), lowC = Math.imul(MULTIPLIERS[1], c);
    a = highC ^ b ^ k;
    b = lowC;
    c = highA ^ d ^ l;
    d = lowA;
    k = k + KEY_STEPS[0] | 0;
    l = l + KEY_STEPS[1] | 0;
  }
  return [a >>> 0, b >>> 0, c >>> 0, d >>> 0];
}

/** The upper 32 of the 64 bits of a product of two words. */
function highWord(x: number, y: number): number {
  const x1 = x >>> 16, x0 = x & 0xffff, y1 = y >>> 16, y0 = y & 0xffff;
  const middle = x1 * y0 + (x0 * y0 >>> 16), carry = x0 * y1 + (middle & 0xffff);
  return x1 * y1 + (middle / 0x10000 | 0) + (carry / 0x10000 | 0) | 0;
}
