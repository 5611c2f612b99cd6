/** One call for the next token of every row, given logits: what the device decides, and what the host has to. */

import * as tf from "@tensorflow/tfjs";
import {
  fromTensors,
  sample,
  type SampledTokens,
  type SamplerTensors,
  type SamplingOps,
  SETTING,
  toTensors,
} from "../backend/sampling.ts";
import { onBackend } from "../backend/current.ts";
import { draw } from "./draw.ts";
import { EDIT, type SampledRow } from "./sampled_row.ts";
import { samplerInputs } from "./sampler_inputs.ts";

/** The sampler's inputs for the next token of each row. The caller frees them. */
export function samplerTensors(rows: readonly SampledRow[]): SamplerTensors {
  const { settings, edits } = samplerInputs(rows);
  return {
    settings: tf.tensor2d(settings, [rows.length, SETTING.count]),
    edits: tf.tensor2d(edits, [edits.length / EDIT.size, EDIT.size]),
  };
}

/** The next token of each row, [B], given logits [B, V] in parts, which stay the caller's. Operation by operation. */
export async function sampleTokens(
  ops: SamplingOps,
  logits: readonly tf.Tensor2D[],
  rows: readonly SampledRow[],
): Promise<number[]> {
  const inputs = samplerTensors(rows);
  const outputs = tf.tidy(() => toTensors(sample(ops, logits, inputs)));
  try {
    return await settledIds(fromTensors(outputs), rows, logits.map(({ shape }) => shape[1]));
  } finally {
    tf.dispose([...outputs, inputs.settings, inputs.edits]);
  }
}

/**
 * The next token of each row, [B], from what the device chose; rows that it left open are decided here. `widths` are those of
 * the parts of the logits. The tensors stay the caller's.
 */
export async function settledIds(
  { ids, settled, max, parts }: SampledTokens,
  rows: readonly SampledRow[],
  widths: readonly number[],
): Promise<number[]> {
  const backend = { name: tf.getBackend() }; // another one may be current after a wait
  const [chosen, decided] = await Promise.all([ids.data(), settled.data()]), result = Array.from(chosen);
  const open = result.keys().filter((row) => !decided[row]).toArray();
  if (open.length === 0) return result;
  const places = onBackend(backend, () => tf.tensor1d(open, "int32"));
  const read = async (part: tf.Tensor2D) => {
    const gathered = onBackend(backend, () => tf.gather(part, places)), size = part.shape[1];
    const values = await gathered.data() as Float32Array;
    gathered.dispose();
    return open.map((_, i) => values.subarray(i * size, (i + 1) * size));
  };
  const largest = await read(max);
  const own = await Promise.all(parts.map(async ({ scaled, softmax, total }, i) => ({
    width: widths[i],
    scaled: await read(scaled),
    softmax: await read(softmax),
    total: await read(total),
  })));
  places.dispose();
  for (const [i, row] of open.entries()) {
    const parts = own.map(({ width, scaled, softmax, total }) => ({
      width,
      scaled: scaled[i],
      softmax: softmax[i],
      total: total[i][0],
    }));
    result[row] = draw({ max: largest[i][0], parts }, rows[row].settings, rows[row].uniform);
  }
  return result;
}
