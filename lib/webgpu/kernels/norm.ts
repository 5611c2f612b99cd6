/** Layer norm by itself, of the last token of each row: what comes before the head. */

import { declare, inside, isVectorized, type Kernel, spread, STEP, storeFour, sumOfAll } from "./wgsl.ts";

const THREADS = 64;

/** How rows are normalised. */
export interface NormOptions {
  /** Rows of the result. */
  rows: number;
  /** D. */
  width: number;
  epsilon: number;
  /** Only the last of each T rows. */
  last: boolean;
}

/** x [N, D], gain [D], shift [D] -> y [N, D], or [B, D] of the last tokens. Bindings: step, x, y, gain, shift. */
export function normKernel({ rows, width, epsilon, last }: NormOptions): Kernel {
  const y = { name: "y", columns: width, access: "read_write" } as const, fours = Math.ceil(width / 4);
  const within = isVectorized(y) ? "" : ` * ${inside(width, "4u * i")}`;
  const code = `${STEP}${
    declare([{ name: "x", columns: width }, y, { name: "gain", columns: width }, { name: "shift", columns: width }])
  }${storeFour(y)}${sumOfAll(THREADS)}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * 32768u;
  if (row >= ${last ? "batchSize()" : "batchSize() * newTokens()"}) { return; }
  let source = ${last ? "row * newTokens() + newTokens() - 1u" : "row"};
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
    store4(row, column, (x4(source, column) - mean) * scale * gain4(0u, column) + shift4(0u, column));
  }
}`;
  return { name: "layer norm", code, workgroups: [...spread(rows), 1] };
}
