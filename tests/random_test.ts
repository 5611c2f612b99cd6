import assert from "node:assert/strict";
import { fillNormal, seededNormal, seededRandom } from "../lib/util/random.ts";

const take = (count: number, next: () => number) => Array.from({ length: count }, next);

/** Mean, deviation, and the share beyond one and two deviations: 0, 1, 0.317 and 0.0455 if normal. */
function moments(values: ArrayLike<number>) {
  const list = Array.from(values);
  const mean = list.reduce((sum, value) => sum + value, 0) / list.length;
  const std = Math.sqrt(list.reduce((sum, value) => sum + (value - mean) ** 2, 0) / list.length);
  const beyond = (limit: number) => list.filter((value) => Math.abs(value - mean) > limit * std).length / list.length;
  return { mean, std, beyond1: beyond(1), beyond2: beyond(2) };
}

function assertNormal(values: ArrayLike<number>, scale: number) {
  const { mean, std, beyond1, beyond2 } = moments(values);
  assert.ok(Math.abs(mean) < 0.01 * scale, `mean ${mean}`);
  assert.ok(Math.abs(std / scale - 1) < 0.01, `std ${std}`);
  assert.ok(Math.abs(beyond1 - 0.3173) < 0.005, `${beyond1} beyond one deviation`);
  assert.ok(Math.abs(beyond2 - 0.0455) < 0.002, `${beyond2} beyond two deviations`);
}

Deno.test("seededRandom() repeats with its seed, differs with another, and fills [0, 1) evenly", () => {
  assert.deepEqual(take(100, seededRandom(5)), take(100, seededRandom(5)));
  assert.notDeepEqual(take(100, seededRandom(5)), take(100, seededRandom(6)));
  const tenths = Array<number>(10).fill(0);
  for (const value of take(100_000, seededRandom(1))) tenths[Math.floor(value * 10)]++;
  assert.equal(tenths.length, 10);
  for (const count of tenths) assert.ok(Math.abs(count - 10_000) < 500, `${tenths}`);
});

Deno.test("seededNormal() and fillNormal() are normal, and repeat with their seed", () => {
  assertNormal(take(200_000, seededNormal(1)), 1);
  assert.deepEqual(take(10, seededNormal(2)), take(10, seededNormal(2)));

  const [a, b, c] = [3, 3, 4].map((seed) => {
    const array = new Float32Array(200_000);
    fillNormal(array, seed, 0.02);
    return array;
  });
  assertNormal(a, 0.02);
  assert.deepEqual(a, b);
  assert.notDeepEqual(a, c);
  const correlation = a.reduce((sum, value, i) => sum + value * c[i], 0) / a.length / 0.02 ** 2;
  assert.ok(Math.abs(correlation) < 0.01, `neighbouring seeds correlate by ${correlation}`);
  const next = a.reduce((sum, value, i) => sum + value * a[(i + 1) % a.length], 0) / a.length / 0.02 ** 2;
  assert.ok(Math.abs(next) < 0.01, `neighbouring numbers correlate by ${next}`);
});
