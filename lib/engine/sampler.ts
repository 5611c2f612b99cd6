/** One call for the next token of every row, given logits: what the device decides, and what the host has to. */

import * as tf from "@tensorflow/tfjs";
import { type SampledTokens, type SamplerTensors, SETTING } from "../backend/sampling.ts";
import { draw, type RowPart } from "./draw.ts";
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

/**
 * The next token of each row, [B], from what the device chose; rows that it left open are decided here. `widths` are those of
 * the parts of the logits. The tensors stay the caller's.
 */
export async function settledIds(
  { ids, settled, scaled, weights }: SampledTokens,
  rows: readonly SampledRow[],
  widths: readonly number[],
): Promise<number[]> {
  const [chosen, decided] = (await Promise.all([ids.data(), settled.data()])).map((values) => Array.from(values));
  const open = rows.keys().filter((row) => !decided[row]).toArray();
  if (open.length === 0) return chosen;
  const places = tf.tensor1d(open, "int32");
  const read = async (part: tf.Tensor2D) => {
    const gathered = tf.gather(part, places);
    try {
      return await gathered.data() as Float32Array;
    } finally {
      gathered.dispose();
    }
  };
  const parts = await Promise.all(
    widths.map(async (width, i) => ({
      width,
      padded: scaled[i].shape[1],
      scaled: await read(scaled[i]),
      weights: await read(weights[i]),
    })),
  );
  places.dispose();
  for (const [i, row] of open.entries()) {
    const own = parts.map(({ width, padded, scaled, weights }): RowPart => ({
      width,
      scaled: scaled.subarray(i * padded, (i + 1) * padded),
      weights: weights.subarray(i * padded, (i + 1) * padded),
    }));
    chosen[row] = draw(own, rows[row].settings, rows[row].uniform);
  }
  return chosen;
}
