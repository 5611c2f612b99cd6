/**
 * Which weights are kept twice. A kernel may keep a copy of its weight in the order that the processor likes best, instead
 * of making one at every call; each captured step has kernels, and so copies, of its own. That makes a model of GPT-2
 * 124M's size up to twice as fast, and would take several times their own memory for the largest.
 */

import { BYTES_PER_WEIGHT, type Dtype } from "../backend/ops.ts";
import { hasAmx, isAmd } from "./capi/processors.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

/** Copies are kept of models up to this size, in steps that run often and in others. */
const BYTES = { often: 0.8e9, once: 0.6e9 };

/** Steps of up to so many tokens have captured functions of their own: oneDNN lays out weights for more of them in another way. */
export const FEW_ROWS = 6;

/** Where {@link padsFewRows}, products of fewer rows are products of so many. */
export const LEAST_ROWS = 5;

const amx = hasAmx(), amd = isAmd();

/** Whether a kernel that multiplies so many rows is to keep a copy of its weight, of a model of `modelSize` numbers. */
export function keepsPacked(backend: TensorflowBackend, dtype: Dtype, rows: number, modelSize = 0): boolean {
  const { packs, binding: { isCapturing } } = backend;
  if (packs && rows === 1 && !packsForOneRow(dtype)) return false;
  return isCapturing && BYTES_PER_WEIGHT[dtype] * modelSize <= (packs ? BYTES.often : BYTES.once);
}

/**
 * Whether a step of one row wants copies: in int8 not where the kernel for packed weights computes with AMX, whose loads seem to be
 * hardly prefetched. One row reads each weight once, and as it lies, up to 1.9 times as fast there where other programs use the
 * memory, too; on a processor without AMX packed weights are 1.2 times as fast. In float32 and bfloat16 the kernel for others adds
 * in another order, and answers would be others alone than in company: of 1,000 drawn ones of the shipped model 8 in float32, of 64
 * in bfloat16, where what comes out is rounded, 3.
 */
export function packsForOneRow(dtype: Dtype): boolean {
  return dtype !== "int8" || !amx;
}

/**
 * Whether products of few rows, whose weights are packed, had better have some more. AMD's Zen 4 reads weights for five rows 1.2 to
 * 1.4 times as fast as for one or two, as if its prefetching needed the time that their arithmetic takes. An Intel Xeon reads them
 * the faster the fewer rows there are.
 */
export function padsFewRows(backend: TensorflowBackend, dtype: Dtype, rows: number, modelSize?: number): boolean {
  return amd && rows <= FEW_ROWS && keepsPacked(backend, dtype, rows, modelSize);
}
