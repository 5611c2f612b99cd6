/**
 * Linear layers with what stands around them: layer norm before, bias, GELU and the residual sum after, in one kernel; for
 * many rows, which each tile would normalise again, layer norm is a kernel of its own.
 *
 * Few rows wait for the weights to come from memory, many wait for arithmetic, so there are two families: rows.ts, which
 * spreads the weights over as many workgroups as it can and reads each of them once, and tiles.ts, which keeps tiles of both
 * matrices in workgroup memory and a block of the result in each thread's registers.
 */

import type { LinearKernelOptions } from "./linear_frame.ts";
import type { Kernel } from "./wgsl.ts";
import { rowsKernel, transposedRowsKernel } from "./rows.ts";
import { sharesOf as sharesOfTiles, tilesKernel } from "./tiles.ts";

export { sumKernel } from "./tiles.ts";

/** The most rows that rows.ts takes: it keeps that many sums in each thread. The head has more to gain, being the largest. */
const MAX_ROWS = 8, MAX_HEAD_ROWS = 16;

/** Whether layer norm is part of the kernel for so many rows; else a kernel of its own comes first. */
export function takesNorm(rows: number): boolean {
  return rows <= MAX_ROWS;
}

/** Among how many workgroups what each makes of the result is shared out: if it is more than one, {@link sumKernel} adds it up. */
export function sharesOf(options: LinearKernelOptions): number {
  return isTiled(options) ? sharesOfTiles(options) : 1;
}

/**
 * x [N, K], weight [K, M] in blocks or [M, K] by rows -> y [N, M], or where it is shared out shares [shares, N, M], with M rounded
 * up to a multiple of 4. Bindings: step, x, weight, y, then unless that are shares bias [M] if there is one, then gain and shift
 * [K] if there is a layer norm.
 */
export function linearKernel(options: LinearKernelOptions): Kernel {
  const { transposed, norm, bias, gelu, accumulate, rows } = options;
  if (transposed && (norm || bias || gelu || accumulate)) throw new Error("A transposed weight stands alone.");
  if (norm && !takesNorm(rows)) throw new Error("Layer norm of many rows is a kernel of its own.");
  if (isTiled(options)) return tilesKernel(options);
  return transposed ? transposedRowsKernel(options) : rowsKernel(options);
}

function isTiled({ rows, transposed }: LinearKernelOptions): boolean {
  return rows > (transposed ? MAX_HEAD_ROWS : MAX_ROWS);
}
