/** Pearson's chi-square test: could these counts come from these probabilities? */

/**
 * The probability that draws from `probabilities` lie as far from them as `counts` do, or farther. Rare outcomes are counted
 * together, so that at least five of each are expected; 0 if something came that cannot.
 */
export function chiSquareP(counts: ArrayLike<number>, probabilities: ArrayLike<number>): number {
  const total = Array.from(counts).reduce((sum, count) => sum + count, 0);
  const bins: { count: number; expected: number }[] = [];
  const rare = { count: 0, expected: 0 };
  for (let i = 0; i < counts.length; i++) {
    const count = counts[i], expected = total * probabilities[i];
    if (expected === 0 && count > 0) return 0;
    if (expected >= 5) bins.push({ count, expected });
    else {
      rare.count += count;
      rare.expected += expected;
    }
  }
  if (rare.expected >= 5) bins.push(rare);
  else if (rare.count > 0 && rare.expected * 1e4 < rare.count) return 0;
  const statistic = bins.reduce((sum, { count, expected }) => sum + (count - expected) ** 2 / expected, 0);
  return bins.length === 1 ? 1 : upperGamma((bins.length - 1) / 2, statistic / 2);
}

/** Q(a, x), the upper regularized incomplete gamma function: its series below a + 1, its continued fraction above (Lentz). */
function upperGamma(a: number, x: number): number {
  if (x <= 0) return 1;
  const front = Math.exp(a * Math.log(x) - x - logGamma(a));
  if (x < a + 1) {
    let term = 1 / a, sum = term;
    for (let n = 1; term > sum * 1e-15; n++) sum += term *= x / (a + n);
    return 1 - front * sum;
  }
  let b = x + 1 - a, c = 1e300, d = 1 / b, fraction = d;
  for (let n = 1; n < 10_000; n++) {
    const an = -n * (n - a);
    b += 2;
    d = 1 / (an * d + b);
    c = b + an / c;
    fraction *= c * d;
    if (Math.abs(c * d - 1) < 1e-15) break;
  }
  return front * fraction;
}

/** Stirling's series, moved up to where it is exact. */
function logGamma(a: number): number {
  let shift = 0;
  for (; a < 15; a++) shift += Math.log(a);
  return (a - 0.5) * Math.log(a) - a + Math.log(2 * Math.PI) / 2 + 1 / (12 * a) - 1 / (360 * a ** 3) - shift;
}
