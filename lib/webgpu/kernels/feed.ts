/** From one step of a chain to the next: each token that was chosen is fed, one position further on. */

import { type Kernel, stepArray, stepBinding } from "./wgsl.ts";

const THREADS = 64;

/** Where a step keeps what moves, by its arrays' numbers. */
export interface FeedOptions {
  /** N. */
  rows: number;
  /** The tokens, of which each is followed by the one that was chosen after it. */
  tokens: number;
  /** Positions: of all tokens, or of a bucket's, of which the bucket at `bucket` in that array has so many. */
  positions: readonly { array: number; bucket: { array: number; first: number } | null }[];
}

/** chosen [N] -> the step's tokens; and its positions, each plus 1. Bindings: step, which it writes, and chosen. */
export function feedKernel({ rows, tokens, positions }: FeedOptions): Kernel {
  const place = (array: number) => `u32(step[${2 + array}]) + n`;
  const moves = positions.map(({ array, bucket }) => {
    const count = bucket ? stepArray(bucket.array, `${bucket.first + 1}u`) : "tokenCount()";
    return `if (n < ${count}) { step[${place(array)}] += 1; }`;
  });
  const code = `${stepBinding("read_write")}
@group(0) @binding(1) var<storage, read> chosen: array<i32>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let n = id.x;
  if (n < tokenCount()) { step[${place(tokens)}] = chosen[n]; }
  ${moves.join("\n  ")}
}`;
  return { name: "feed", code, workgroups: [Math.ceil(rows / THREADS), 1, 1] };
}
