/**
 * Linear layers with what stands around them: layer norm before, bias, GELU and the residual sum after, in one kernel.
 *
 * Few rows wait for the weights to come from memory, many wait for arithmetic, so there are two families: rows.ts, which
 * spreads the weights over as many workgroups as it can and reads each of them once, and tiles.ts, which keeps tiles of both
 * matrices in workgroup memory and a block of the result in each thread's registers.
 */

import type { LinearKernelOptions } from "./linear_frame.ts";
import type { Kernel } from "./wgsl.ts";
import { rowsKernel, transposedRowsKernel } from "./rows.ts";
import { tilesKernel } from "./tiles.ts";

/** The most rows that rows.ts takes: it keeps that many sums in each thread. The head has more to gain, being the largest. */
const MAX_ROWS = 8, MAX_HEAD_ROWS = 16;

/**
 * x [N, K], weight [K, M] or [M, K] -> y [N, M]. Bindings: step, x, weight, y, then bias [M] if there is one, then gain and
 * shift [K] if there is a layer norm.
 */
export function linearKernel(options: LinearKernelOptions): Kernel {
  const { transposed, norm, bias, gelu, accumulate } = options;
  if (transposed && (norm || bias || gelu || accumulate)) throw new Error("A transposed weight stands alone.");
  if (options.rows > (transposed ? MAX_HEAD_ROWS : MAX_ROWS)) return tilesKernel(options);
  return transposed ? transposedRowsKernel(options) : rowsKernel(options);
}
