/** How models run on libtensorflow where that runs on a GPU. */

import { type Backend, RUN_AHEAD } from "../backend/types.ts";
import { availableMemory } from "../util/host_memory.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import { CapturedChain } from "./chain.ts";
import { compiledOps } from "./compiled.ts";
import { compiles } from "./probe.ts";

/**
 * libtensorflow as it is used on a GPU: one lane, since the GPU shares out the work itself, and steps that XLA compiles, if it
 * can: `compiled` says whether, and by default it is tried. It does the same on a CPU, where that is not the quickest way.
 */
export async function tensorflowOnGpu(backend: TensorflowBackend, compiled?: boolean): Promise<Backend> {
  compiled ??= await compiles(backend);
  return {
    name: "tensorflow",
    description: `libtensorflow ${backend.binding.TF_Version} on the ${backend.onGpu ? "GPU" : "CPU"}, ` +
      (compiled ? "compiled by XLA" : "without XLA") +
      (backend.onGpu && allowsTf32() ? ", TF32 allowed in float32 products" : ""),
    threads: 1,
    lanes: 1,
    groups: 1,
    ops: compiledOps(backend, compiled),
    // Empty slots cost nothing compared with compiling a step again for a longer cache.
    cachePolicy: {
      bucketCost: Infinity,
      emptySlotsAreFree: true,
      keepsSpare: true,
      slotsFor: (needed) => 16 * roundUp(Math.ceil(needed / 16)),
      roomFor: sizeFor,
    },
    dtypes: compiled ? ["float32", "bfloat16"] : ["float32"],
    // How much of a GPU's memory is in use, TensorFlow does not say.
    availableMemory: () => backend.onGpu ? backend.binding.deviceMemory : availableMemory(),
    createTensor: (shape, fill) => backend.createTensor(shape, fill),
    capturesAll: true,
    ...compiled ? { runsAhead: RUN_AHEAD.gpu } : {},
    capture(inputs, build) {
      const captured = backend.capture(inputs, build), chain = compiled ? new CapturedChain(backend, build) : undefined;
      return {
        run: (inputs) => captured.run(inputs, { compiled }),
        ...chain && { chain: (inputs, moving, count) => chain.run(inputs, moving, count) },
        dispose: () => [captured, chain].forEach((one) => one?.dispose()),
      };
    },
    ...compiled
      ? {
        sizeFor,
        // The layers of one row are other operations.
        sizeClass: (tokens, wanted) => [tokens, wanted].map((count) => count === 1 ? "one" : "several").join(),
      }
      : {},
  };
}

/**
 * Whether tensor cores may multiply float32 numbers rounded to 10 bits after the point: TensorFlow allows it, and NVIDIA's libraries do
 * it on GPUs that can, unless their environment variable forbids it.
 */
function allowsTf32(): boolean {
  return Deno.env.get("NVIDIA_TF32_OVERRIDE") !== "0";
}

/**
 * XLA compiles a step for its sizes, so there are few of them: one, and whole groups of eight, which is what matrix units take; XLA
 * would fill up others in every layer.
 */
function sizeFor(count: number): number {
  return count === 1 ? 1 : 8 * roundUp(Math.ceil(count / 8));
}

/** To a whole number of three binary digits: 1 to 8, 10, 12, 14, 16, … */
function roundUp(count: number): number {
  const unit = 2 ** Math.max(0, Math.floor(Math.log2(count)) - 2);
  return unit * Math.ceil(count / unit);
}
