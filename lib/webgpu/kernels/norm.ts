/** Layer norm by itself, of the tokens that logits are wanted after: what comes before the head. */

import {
  declare,
  inside,
  isVectorized,
  type Kernel,
  repeat,
  spread,
  STEP,
  stepArray,
  storeFour,
  sumOfAll,
} from "./wgsl.ts";

const THREADS = 128;

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
  const turns = Math.ceil(fours / THREADS);
  const within = (t: number) => isVectorized(y) ? "" : ` * ${inside(width, `column${t}`)}`;
  const code = `${STEP}${
    declare([{ name: "x", columns: width }, y, { name: "gain", columns: width }, { name: "shift", columns: width }])
  }${storeFour(y)}${sumOfAll(THREADS)}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * 32768u;
  if (row >= ${wanted === null ? "tokenCount()" : "wantedCount()"}) { return; }
  let source = ${wanted === null ? "row" : stepArray(wanted, "row")};
  ${
    repeat(turns, (t) =>
      `let i${t} = thread + ${t * THREADS}u; let column${t} = 4u * min(i${t}, ${fours - 1}u);
  let values${t} = x4(source, column${t}); let gains${t} = gain4(0u, column${t}); let shifts${t} = shift4(0u, column${t});`)
  }
  // Σ x − x₀ and Σ (x − x₀)² at once: with the pivot, rows of large numbers that are close together keep their variance.
  let pivot = x4(source, 0u).x;
  var sums = vec4f();
  ${
    repeat(turns, (t) => {
      const add = `let d = (values${t} - pivot)${within(t)}; sums += vec4f(dot(d, vec4f(1)), dot(d, d), 0, 0);`;
      return (t + 1) * THREADS <= fours ? `{ ${add} }` : `if (i${t} < ${fours}u) { ${add} }`;
    })
  }
  let all = sumOfAll(sums, thread) / ${width}f;
  let mean = pivot + all.x;
  let scale = inverseSqrt(all.y - all.x * all.x + ${epsilon}f);
  ${
    repeat(turns, (t) =>
      `if (i${t} < ${fours}u) { y_store4(row, column${t}, (values${t} - mean) * scale * gains${t} + shifts${t}); }`)
  }
}`;
  return { name: "layer norm", code, workgroups: [...spread(rows), 1] };
}
