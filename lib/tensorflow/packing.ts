/**
 * Which weights are kept twice. A kernel may keep a copy of its weight in the order that the processor likes best, instead
 * of making one at every call; each captured step has kernels, and so copies, of its own. That makes a model of GPT-2
 * 124M's size up to twice as fast, and would take several times their own memory for the largest. A step of one row has no use
 * for copies: it reads each weight once, as it lies. In int8 that is faster by up to 1.9 where other programs use the memory,
 * too: the kernel for packed weights computes with AMX, whose loads are hardly prefetched.
 */

import type { TensorflowBackend } from "./tfjs/backend.ts";

/** Copies are kept of models up to this size, in steps that run often and in others. */
const BYTES = { often: 0.8e9, once: 0.6e9 };

/** Whether a kernel is to keep a copy of its weight: `modelBytes` is what all of the model's weights take. */
export function keepsPacked(backend: TensorflowBackend, rows: number, modelBytes: number): boolean {
  const { packs, binding: { isCapturing } } = backend;
  return isCapturing && !(packs && rows === 1) && modelBytes <= (packs ? BYTES.often : BYTES.once);
}
