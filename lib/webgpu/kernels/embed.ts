/** Token embedding plus position embedding. */

import { declare, type Kernel, STEP, stepArray, storeFour } from "./wgsl.ts";

/** How the embeddings are looked up. */
export interface EmbedOptions {
  /** N: rows of the result. */
  rows: number;
  /** D. */
  width: number;
  /** Which of the step's arrays holds the ids that each table is asked for. */
  ids: readonly [number, number];
  /** The rows of the first table that are bound; what belongs to others is left alone. */
  part: { first: number; count: number };
}

/** tables [V, D] and [P, D] -> y [N, D]: the sum of a row of each. Bindings: step, both tables, y. */
export function embedKernel({ rows, width, ids, part }: EmbedOptions): Kernel {
  const y = { name: "y", columns: width, access: "read_write" } as const, fours = Math.ceil(width / 4);
  const code = `${STEP}${declare([{ name: "first", columns: width }, { name: "second", columns: width }, y])}${
    storeFour(y)
  }
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x / ${fours}u;
  let column = 4u * (id.x % ${fours}u);
  if (row >= tokenCount()) { return; }
  let one = ${stepArray(ids[0], "row")} - ${part.first}u; // wraps below the part
  if (one >= ${part.count}u) { return; }
  let other = ${stepArray(ids[1], "row")};
  y_store4(row, column, first4(one, column) + second4(other, column));
}`;
  return { name: "embed", code, workgroups: [Math.ceil(rows * fours / 64), 1, 1] };
}
