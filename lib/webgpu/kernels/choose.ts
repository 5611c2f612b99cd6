/** The choice of the next token: the largest logit of each row, and the logarithm of its probability. */

import { type Kernel, reduction, spread, STEP } from "./wgsl.ts";

const THREADS = 256;
/** Logits that one workgroup looks at. */
const CHUNK = 4096;

/** Words of each row's share of what {@link searchKernel} leaves for {@link chooseKernel}. */
export function searchWords(vocabulary: number): number {
  return 3 * Math.ceil(vocabulary / CHUNK);
}

/** What a chunk of logits comes to: the largest, its index, and Σ exp(l − largest); of two such, what both come to. */
const BEST = `struct Best { value: f32, index: u32, sum: f32 }
fn better(a: Best, b: Best) -> Best {
  let first = a.value > b.value || (a.value == b.value && a.index < b.index);
  let best = select(b.value, a.value, first);
  return Best(best, select(b.index, a.index, first), a.sum * exp(a.value - best) + b.sum * exp(b.value - best));
}
const NOTHING = Best(-3.0e38, 0xffffffffu, 0.0);
`;

/**
 * logits [M, V] -> found [M, V/4096, 3]. Bindings: step, logits, found. Without `probabilities` the sums, which cost an
 * exponential for each logit, mean nothing.
 */
export function searchKernel(rows: number, vocabulary: number, probabilities: boolean): Kernel {
  const chunks = Math.ceil(vocabulary / CHUNK);
  const code = `${STEP}${BEST}
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> found: array<u32>;
${reduction("bestOfAll", "Best", THREADS, (a, b) => `better(${a}, ${b})`)}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = group.y + group.z * 32768u;
  if (row >= wantedCount()) { return; }
  var mine = NOTHING;
  let end = min((group.x + 1u) * ${CHUNK}u, ${vocabulary}u);
  let begin = group.x * ${CHUNK}u + thread;
  for (var i = begin; i < end; i += ${THREADS}u) {
    let value = logits[row * ${vocabulary}u + i];
    if (value > mine.value) { mine = Best(value, i, 0.0); }
  }
  ${
    probabilities
      ? `for (var i = begin; i < end; i += ${THREADS}u) { mine.sum += exp(logits[row * ${vocabulary}u + i] - mine.value); }`
      : ""
  }
  let best = bestOfAll(mine, thread);
  if (thread == 0u) {
    let at = 3u * (row * ${chunks}u + group.x);
    found[at] = bitcast<u32>(best.value);
    found[at + 1u] = best.index;
    found[at + 2u] = bitcast<u32>(best.sum);
  }
}`;
  return { name: "search", code, workgroups: [chunks, ...spread(rows)] };
}

/** found [M, V/4096, 3] -> chosen [2, M]: the ids, then the log-probabilities. Bindings: step, found, chosen. */
export function chooseKernel(rows: number, vocabulary: number): Kernel {
  const chunks = Math.ceil(vocabulary / CHUNK);
  const code = `${STEP}${BEST}
@group(0) @binding(1) var<storage, read> found: array<u32>;
@group(0) @binding(2) var<storage, read_write> chosen: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= wantedCount()) { return; }
  var best = NOTHING;
  for (var i = 0u; i < ${chunks}u; i++) {
    let at = 3u * (id.x * ${chunks}u + i);
    best = better(best, Best(bitcast<f32>(found[at]), found[at + 1u], bitcast<f32>(found[at + 2u])));
  }
  chosen[id.x] = min(best.index, ${vocabulary - 1}u);
  chosen[wantedCount() + id.x] = bitcast<u32>(-log(best.sum));
}`;
  return { name: "choose", code, workgroups: [Math.ceil(rows / 64), 1, 1] };
}
