/** The two 16-bit floating-point formats of checkpoints, as their bits, to float32 and back. */

/** Widens float16 bits into `destination`, which has the same length. Exact. */
export function float16ToFloat32(bits: Uint16Array, destination: Float32Array): void {
  const table = float16Values ??= new Float32Array(
    new Float16Array(Uint16Array.from({ length: 2 ** 16 }, (_, i) => i).buffer),
  );
  for (let i = 0; i < bits.length; i++) destination[i] = table[bits[i]];
}

/** What each of the 65,536 bit patterns is worth: a look-up is faster than the arithmetic. */
let float16Values: Float32Array | undefined;

/** Widens bfloat16 bits, the upper half of a float32, into `destination`, which has the same length. Exact. */
export function bfloat16ToFloat32(bits: Uint16Array, destination: Float32Array): void {
  const words = new Uint32Array(destination.buffer, destination.byteOffset, destination.length);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i] << 16;
}

/** The float16 bits nearest to each value; beyond ±65,504 that is infinity. */
export function float32ToFloat16(values: Float32Array): Uint16Array {
  return new Uint16Array(new Float16Array(values).buffer);
}

/** The bfloat16 bits nearest to each value; of two equally near, the even one. NaN stays NaN. */
export function float32ToBfloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bits = new Uint16Array(words.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i];
    const isNaN = (word & 0x7fffffff) > 0x7f800000;
    bits[i] = isNaN ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return bits;
}
