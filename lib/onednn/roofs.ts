/** What the processor could do at most: how fast it reads its memory, and how fast oneDNN multiplies. */

import * as tf from "@tensorflow/tfjs";
import { onBackend } from "../backend/current.ts";
import type { Dtype } from "../backend/ops.ts";
import type { Backend, Roofs } from "../backend/types.ts";
import { nextTurn } from "../util/turn.ts";
import { DataType, type Onednn } from "./library.ts";
import { type Form, Weight } from "./weight.ts";

/** [N, K, M]: which is quickest depends on the type and on the processor. */
const LARGE = [[1536, 1536, 1536], [512, 768, 3072], [1024, 1024, 4096]] as const;
/** Numbers to read, many more than most caches hold. */
const ROWS = 64, COLUMNS = 2 ** 20;

/** Measures both roofs with weights of this type, the best of a few runs each; tfjs's `backend` does the reading. */
export async function measureOnednnRoofs(
  library: Onednn,
  backend: Pick<Backend, "name">,
  dtype: Dtype,
): Promise<Roofs> {
  const all = onBackend(backend, () => tf.fill([ROWS, COLUMNS], 1));
  const reading = await fastest(() => onBackend(backend, () => void tf.tidy(() => tf.sum(all, 1).dataSync())));
  all.dispose();
  let flops = 0;
  for (const [rows, inputs, outputs] of LARGE) {
    flops = Math.max(flops, 2 * rows * inputs * outputs / await multiplying(library, dtype, rows, inputs, outputs));
  }
  return { bandwidth: ROWS * COLUMNS * Float32Array.BYTES_PER_ELEMENT / reading, flops };
}

/** The seconds of a product of so many rows with a weight. */
async function multiplying(library: Onednn, dtype: Dtype, rows: number, inputs: number, outputs: number) {
  const int8 = dtype === "int8",
    form: Form = int8 ? { type: DataType.uint8, low: 0, step: 1 } : { type: DataType[dtype] };
  const scale = int8 ? new Float32Array(outputs).fill(1) : null, values = new Float32Array(inputs * outputs);
  const weight = new Weight(library, { values, inputs, outputs, transposed: false, scale }, null, form);
  const { given, sums, run } = weight.prepare(rows), seconds = await fastest(run);
  weight.dispose();
  for (const memory of [given, sums]) memory.free();
  return seconds;
}

/** The fewest seconds of several runs. The first one prepares and does not count. */
async function fastest(work: () => void): Promise<number> {
  let best = Infinity;
  for (let run = 0; run <= 8; run++) {
    await nextTurn();
    const start = performance.now();
    work();
    if (run > 0) best = Math.min(best, (performance.now() - start) / 1000);
  }
  return best;
}
