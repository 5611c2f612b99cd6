/** Layer norm by itself, of the tokens that logits are wanted after: what comes before the head. */

import { declare, inside, isVectorized, type Kernel, spread, STEP, stepArray, storeFour, sumOfAll } from "./wgsl.ts";

const THREADS = 64;

/** How rows are normalised. */
export interface NormOptions {
  /** Rows of the result. */
  rows: number;
  /** D. */
  width: number;
  epsilon: number;
  /** Which of the step's arrays says which rows of x are wanted; null for all of them. */
  wanted: number | null;
}

/** x [N, D], gain [D], shift [D] -> y [N, D], or [M, D] of the wanted ones. Bindings: step, x, y, gain, shift. */
export function normKernel({ rows, width, epsilon, wanted }: NormOptions): Kernel {
  const y = { name: "y", columns: width, access: "read_write" } as const, fours = Math.ceil(width / 4);
  const within = isVectorized(y) ? "" : ` * ${inside(width, "4u * i")}`;
  const code = `${STEP}${
    declare([{ name: "x", columns: width }, y, { name: "gain", columns: width }, { name: "shift", columns: width }])
  }${storeFour(y)}${sumOfAll(THREADS)}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * 32768u;
  if (row >= ${wanted === null ? "tokenCount()" : "wantedCount()"}) { return; }
  let source = ${wanted === null ? "row" : stepArray(wanted, "row")};
  var sum = vec4f();
  for (var i = thread; i < ${fours}u; i += ${THREADS}u) { sum += x4(source, 4u * i); }
  let mean = dot(sumOfAll(sum, thread), vec4f(1)) / ${width}f;
  var squares = vec4f();
  for (var i = thread; i < ${fours}u; i += ${THREADS}u) {
    let centred = (x4(source, 4u * i) - mean)${within};
    squares += centred * centred;
  }
  let scale = inverseSqrt(dot(sumOfAll(squares, thread), vec4f(1)) / ${width}f + ${epsilon}f);
  for (var i = thread; i < ${fours}u; i += ${THREADS}u) {
    let column = 4u * i;
    y_store4(row, column, (x4(source, column) - mean) * scale * gain4(0u, column) + shift4(0u, column));
  }
}`;
  return { name: "layer norm", code, workgroups: [...spread(rows), 1] };
}
