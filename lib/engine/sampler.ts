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
  const outputs = toTensors(sample(ops, logits, inputs));
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
  { ids, settled, weights }: SampledTokens,
  rows: readonly SampledRow[],
  widths: readonly number[],
): Promise<number[]> {
  const backend = { name: tf.getBackend() }; // another one may be current after a wait
  const [chosen, decided] = await Promise.all([ids.data(), settled.data()]), result = Array.from(chosen);
  const open = result.keys().filter((row) => !decided[row]).toArray();
  if (open.length === 0) return result;
  const { places, gathered } = onBackend(backend, () => {
    const places = tf.tensor1d(open, "int32");
    return { places, gathered: weights.map((part) => tf.gather(part, places)) };
  });
  const values = await Promise.all(gathered.map((part) => part.data() as Promise<Float32Array>));
  for (const [i, row] of open.entries()) {
    const parts = values.map((values, part) => {
      const size = weights[part].shape[1];
      return { width: widths[part], weights: values.subarray(i * size, (i + 1) * size) };
    });
    result[row] = draw(parts, rows[row].settings, rows[row].uniform);
  }
  tf.dispose([places, ...gathered]);
  return result;
}
