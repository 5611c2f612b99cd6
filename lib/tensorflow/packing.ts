/**
 * Which weights are kept twice. A kernel may keep a copy of its weight in the order that the processor likes best, instead
 * of making one at every call; each captured step has kernels, and so copies, of its own. That makes a model of GPT-2
 * 124M's size up to twice as fast, and would take several times their own memory for the largest.
 */

import type { Dtype } from "../backend/ops.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

/** Copies are kept of models up to this size, in steps that run often and in others. */
const BYTES = { often: 0.8e9, once: 0.6e9 };

/** Whether a kernel that multiplies so many rows is to keep a copy of its weight: `modelBytes` is what all of the model's take. */
export function keepsPacked(backend: TensorflowBackend, dtype: Dtype, rows: number, modelBytes: number): boolean {
  const { packs, binding: { isCapturing } } = backend;
  if (packs && rows === 1 && !packsForOneRow(dtype)) return false;
  return isCapturing && modelBytes <= (packs ? BYTES.often : BYTES.once);
}

/**
 * Whether a step of one row wants copies. It reads each weight once, as well as it lies, and in int8 up to 1.9 times as fast where
 * other programs use the memory, too: the kernel for packed weights computes with AMX, whose loads seem to be hardly prefetched.
 * But in float32 and bfloat16 the kernel for others adds in another order, and answers would be others alone than in company: of
 * 1,000 drawn ones of the shipped model 8 in float32, of 64 in bfloat16, where what comes out is rounded, 3.
 */
export function packsForOneRow(dtype: Dtype): boolean {
  return dtype !== "int8";
}
