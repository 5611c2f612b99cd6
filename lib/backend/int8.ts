/** Weights as int8 numbers: symmetric, −127 to 127, each output channel scaled to its largest magnitude. */

import type { Range } from "../util/ranges.ts";

/** An int8 weight: a matrix of numbers, and what each output channel's are to be multiplied with. */
export interface Int8Weight {
  /** [K, M], or [M, K] if `axis` is 0; row by row. */
  readonly values: Int8Array<ArrayBuffer>;
  /** Rows and columns of `values`. */
  readonly shape: readonly [rows: number, columns: number];
  /** Where the output channels are: 1, in columns, as in linear layers; 0, in rows, as in the embedding that is the head. */
  readonly axis: 0 | 1;
  /** [M]: weight = value · scale. */
  readonly scale: Float32Array;
}

/**
 * What the inputs of a linear layer range over, zero included: what 0 and 255 stand for in its eight-bit inputs. What lies
 * beyond is cut off.
 */
export type ActivationRange = readonly [low: number, high: number];

/**
 * Ranges by the layers' names in the checkpoint (`h.0.mlp.c_fc`; the head is `lm_head`). A layer that is missing scales each row
 * as it comes.
 */
export type ActivationRanges = ReadonlyMap<string, ActivationRange>;

/** The range moved so that zero is one of its 256 numbers. */
export function withZero([low, high]: ActivationRange): ActivationRange {
  const step = (high - low) / 255, zero = Math.round(-low / step);
  return [-zero * step, (255 - zero) * step];
}

/** Whether these two numbers can be a range. */
export function isActivationRange([low, high]: readonly number[]): boolean {
  return low <= 0 && high >= 0 && high - low > 0 && Number.isFinite(Math.fround(high - low));
}

/** Weights of that shape -> the nearest int8 ones. Rounds as TensorFlow's QuantizeV2 does, in float32 and halves to even. */
export function quantizeInt8(weights: Float32Array, shape: readonly [number, number], axis: 0 | 1): Int8Weight {
  const limit = new Float32Array(shape[axis]).fill(1e-12); // a channel of zeros has a scale too
  eachChannel(shape, axis, (i, channel) => {
    const size = Math.abs(weights[i]);
    if (size > limit[channel]) limit[channel] = size;
  });
  const factor = limit.map((limit) => 127 / limit);
  const values = new Int8Array(weights.length);
  eachChannel(shape, axis, (i, channel) => values[i] = roundHalfToEven(weights[i] * factor[channel]));
  return { values, shape, axis, scale: limit.map(scaleOf) };
}

/** The weights in float32, row by row into `destination`. */
export function dequantizeInt8({ values, shape, axis, scale }: Int8Weight, destination: Float32Array): void {
  eachChannel(shape, axis, (i, channel) => destination[i] = values[i] * scale[channel]);
}

/** Some rows (`axis` 0) or columns (1) of a weight, side by side. */
export function cutInt8(
  weight: Int8Weight,
  axis: 0 | 1,
  ranges: readonly Range[],
): Int8Weight {
  const [rows, columns] = weight.shape, kept = ranges.reduce((sum, [start, end]) => sum + end - start, 0);
  const scale = axis === weight.axis
    ? Float32Array.from(ranges.flatMap(([start, end]) => [...weight.scale.subarray(start, end)]))
    : weight.scale;
  const values = new Int8Array(axis === 0 ? kept * columns : rows * kept);
  let done = 0;
  const copy = (start: number, end: number) => {
    values.set(weight.values.subarray(start, end), done);
    done += end - start;
  };
  if (axis === 0) { for (const [start, end] of ranges) copy(start * columns, end * columns); }
  else {
    for (let row = 0; row < rows; row++) {
      for (const [start, end] of ranges) copy(row * columns + start, row * columns + end);
    }
  }
  return { ...weight, values, scale, shape: axis === 0 ? [kept, columns] : [rows, kept] };
}

/** Calls `visit` with the index of every element of a matrix, row by row, and its channel along `axis`. */
function eachChannel(
  [rows, columns]: readonly [number, number],
  axis: 0 | 1,
  visit: (i: number, channel: number) => void,
): void {
  for (let row = 0, i = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) visit(i++, axis === 0 ? row : column);
  }
}

/** The number nearest to limit / 127 that gives, times 127, the limit again, where there is one. */
function scaleOf(limit: number): number {
  const scale = Math.fround(limit / 127);
  const near = [scale, Math.fround(scale * (1 + 2 ** -23)), Math.fround(scale * (1 - 2 ** -23))];
  return near.find((scale) => Math.fround(127 * scale) === limit) ?? scale;
}

/** Adding 1.5 · 2²³ to a float32 leaves no room for its fraction: it is rounded, and halves go to the even side. */
function roundHalfToEven(x: number): number {
  return Math.fround(Math.fround(x) + 3 * 2 ** 22) - 3 * 2 ** 22;
}
