/**
 * Which weights are kept twice. A kernel may keep a copy of its weight in the order that the processor likes best, instead
 * of making one at every call; each captured step has kernels, and so copies, of its own. That makes a model of GPT-2
 * 124M's size up to twice as fast, and would take several times their own memory for the largest.
 */

import type { Dtype } from "../backend/ops.ts";
import { multipliesWithAmx } from "./capi/processors.ts";
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
 * Whether a step of one row wants copies: in int8 not where the kernel for packed weights computes with AMX, whose loads seem to be
 * hardly prefetched. One row reads each weight once, and as it lies, up to 1.9 times as fast there where other programs use the
 * memory, too; on a processor without AMX packed weights are 1.2 times as fast. In float32 and bfloat16 the kernel for others adds
 * in another order, and answers would be others alone than in company: of 1,000 drawn ones of the shipped model 8 in float32, of 64
 * in bfloat16, where what comes out is rounded, 3.
 */
export function packsForOneRow(dtype: Dtype): boolean {
  return dtype !== "int8" || !amx;
}

const amx = multipliesWithAmx();
