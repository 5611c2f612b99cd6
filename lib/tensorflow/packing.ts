/**
 * Which weights are kept twice. A kernel may keep a copy of its weight in the order that the processor likes best, instead
 * of making one at every call; each captured step has kernels, and so copies, of its own. That makes a model of GPT-2
 * 124M's size up to twice as fast, and would take several times their own memory for the largest.
 */

import type { TensorflowBackend } from "./tfjs/backend.ts";

/** Copies are kept of models up to this size, in steps that run often and in others. */
const BYTES = { often: 0.8e9, once: 0.6e9 };

/** Whether a kernel is to keep a copy of its weight: `modelBytes` is what all of the model's weights take. */
export function keepsPacked(backend: TensorflowBackend, modelBytes: number): boolean {
  return backend.binding.isCapturing && modelBytes <= (backend.packs ? BYTES.often : BYTES.once);
}
