import assert from "node:assert/strict";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "../lib/util/half.ts";
import { seededRandom } from "../lib/util/random.ts";

const everyPattern = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i);

/** What a bit pattern is worth, from the definition: sign, biased exponent, fraction. */
function worth(bits: number, exponentBits: number): number {
  const fractionBits = 15 - exponentBits;
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}

/** The position of the value nearest to `x` among ascending `values`; of two equally near, the one with even bits. */
function nearest(x: number, values: Map<number, number>): number {
  let best = 0, distance = Infinity;
  for (const [bits, value] of values) {
    const d = Math.abs(value - x);
    if (d < distance || (d === distance && bits % 2 === 0)) [best, distance] = [bits, d];
  }
  return best;
}

for (
  const { name, exponentBits, widen, narrow } of [
    { name: "float16", exponentBits: 5, widen: float16ToFloat32, narrow: float32ToFloat16 },
    { name: "bfloat16", exponentBits: 8, widen: bfloat16ToFloat32, narrow: float32ToBfloat16 },
  ]
) {
  Deno.test(`${name}: all 65,536 patterns widen to what they are worth, and narrow back`, () => {
    const values = new Float32Array(2 ** 16);
    widen(everyPattern, values);
    const back = narrow(values);
    for (const bits of everyPattern) {
      const expected = worth(bits, exponentBits);
      assert.ok(Object.is(values[bits], expected), `0x${bits.toString(16)} is ${expected}, not ${values[bits]}`);
      if (Number.isNaN(expected)) assert.ok(Number.isNaN(worth(back[bits], exponentBits)));
      else assert.equal(back[bits], bits);
    }
  });

  Deno.test(`${name}: values narrow to the nearest pattern, and to the even one of two`, () => {
    const random = seededRandom(1);
    const finite = new Map(
      Array.from(everyPattern.subarray(0, 2 ** 15), (bits) => [bits, worth(bits, exponentBits)] as const)
        .filter(([, value]) => Number.isFinite(value)),
    );
    const patterns = Array.from({ length: 200 }, () => Math.floor(random() * (finite.size - 1)));
    const between = patterns.map((bits) => (finite.get(bits)! + finite.get(bits + 1)!) / 2);
    const values = Float32Array.from([...between, ...between.map((value) => value * (1 + (random() - 0.5) / 100))]);
    narrow(values).forEach((bits, i) => {
      if (Number.isFinite(values[i])) assert.equal(bits, nearest(values[i], finite), `${values[i]}`);
    });
    const beyond = narrow(new Float32Array([3.4e38, -3.4e38, Infinity, -Infinity]));
    assert.deepEqual(Array.from(beyond, (bits) => worth(bits, exponentBits)), [
      Infinity,
      -Infinity,
      Infinity,
      -Infinity,
    ]);
  });
}
