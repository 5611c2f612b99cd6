/**
 * Attention over the cache, in place: writes the new tokens' keys and values into it and attends to all that a token sees.
 *
 * One workgroup for each head of each new token. It reads the other new tokens' keys and values where the linear layer left
 * them, not from the cache, so it need not wait for the workgroups that write those. Scores go through the softmax in
 * chunks, rescaled as the maximum grows (Milakov and Gimelshein 2018), so the cache may be of any length.
 */

import { declare, type Kernel, repeat, spread, STEP, stepArray, storeFour } from "./wgsl.ts";

/** Workgroups that leave a large GPU idle. */
const FEW = 200;
/** Values that a thread asks for at once. */
const AT_ONCE = 4;
/** Slots whose scores are held at once. */
const CHUNK = 256;

/** How heads attend. */
export interface AttentionOptions {
  /** n: tokens of the bucket. */
  tokens: number;
  /** H. */
  heads: number;
  /** D/H. */
  size: number;
  /** Which of the step's arrays says where each of these tokens is: its position, and unless each row has one, row and column. */
  arrays: { positions: number; rectangle: { rows: number; columns: number } | null };
  /** Which of the step's arrays describes buckets, and where in it this one is: first token, tokens, slots. */
  bucket: { array: number; first: number };
}

/** The widest head that fits into a workgroup. */
export const MAX_HEAD_SIZE = 512;

/** qkv [N, 3D], keys and values [R, H, S, D/H] -> y [N, D], of one bucket's tokens. Bindings: step, qkv, keys, values, y. */
export function attentionKernel({ tokens, heads, size, arrays, bucket }: AttentionOptions): Kernel {
  const fours = Math.ceil(size / 4), few = tokens * heads <= FEW;
  const threads = Math.max(few ? 128 : 64, fours), lanes = few ? 4 : 2;
  const groups = Math.floor(threads / fours);
  // A head's columns begin at a multiple of 4 only if its size is one; then all matrices are vectors of 4, else numbers.
  const one = (name: string, access: "read" | "read_write") => ({ name, columns: size, access });
  const [keys, values, y] = ["keys", "values", "y"].map((name) => one(name, "read_write"));
  const about = (i: number) => stepArray(bucket.array, `${bucket.first + i}u`), { positions, rectangle } = arrays;
  const code = `${STEP}${declare([one("qkv", "read"), keys, values, y])}${
    [y, keys, values].map((matrix) => storeFour(matrix)).join("")
  }
var<workgroup> query: array<vec4f, ${fours}>;
var<workgroup> shares: array<f32, ${lanes * CHUNK}>;
var<workgroup> scores: array<f32, ${CHUNK + AT_ONCE * groups}>; // 0 beyond the last slot
var<workgroup> sums: array<vec4f, ${threads}>;
var<workgroup> totals: array<f32, ${threads}>; // and largest scores

// With rows of D/H numbers, a token has ${3 * heads} rows in qkv: the heads' queries, their keys, their values.
// Slots before \`firstSlot\` are in the cache, the others in the step.
fn keyOf(inCache: u32, inStep: u32, firstSlot: u32, slot: u32, column: u32) -> vec4f {
  if (slot < firstSlot) { return keys4(inCache + slot, column); }
  return qkv4(inStep + (slot - firstSlot) * ${3 * heads}u + ${heads}u, column);
}
fn valueOf(inCache: u32, inStep: u32, firstSlot: u32, slot: u32, column: u32) -> vec4f {
  if (slot < firstSlot) { return values4(inCache + slot, column); }
  return qkv4(inStep + (slot - firstSlot) * ${3 * heads}u + ${2 * heads}u, column);
}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = group.x;
  let n = group.y + group.z * 32768u; // of the bucket's tokens
  if (n >= ${about(1)}) { return; }
  let row = ${about(0)} + n; // of all tokens of the step
  let position = ${stepArray(positions, "n")};
  let b = ${rectangle ? stepArray(rectangle.rows, "n") : "n"};
  let t = ${rectangle ? stepArray(rectangle.columns, "n") : "0u"};
  let end = position + 1u;
  let firstSlot = position - t;
  let inCache = (b * ${heads}u + head) * ${about(2)};
  let inStep = (row - t) * ${3 * heads}u + head;
  if (thread < ${fours}u) {
    let mine = row * ${3 * heads}u + head;
    let column = 4u * thread;
    query[thread] = qkv4(mine, column);
    keys_store4(inCache + end - 1u, column, qkv4(mine + ${heads}u, column));
    values_store4(inCache + end - 1u, column, qkv4(mine + ${2 * heads}u, column));
  }
  workgroupBarrier();

  let lane = thread % ${fours}u;
  let stripe = thread / ${fours}u; // which of the slots it adds up: ${groups} stripes of threads take turns
  var largest = -3.0e38;
  var total = 0.0;
  var sum = vec4f();
  for (var chunk = 0u; chunk < end; chunk += ${CHUNK}u) {
    let count = min(${CHUNK}u, end - chunk);
    // ${lanes} threads share a slot, so that they read side by side
    for (var i = thread; i < ${lanes}u * count; i += ${threads}u) {
      let slot = chunk + i / ${lanes}u;
      let j = i % ${lanes}u;
      ${
    repeat(Math.ceil(fours / lanes), (turn) =>
      `let key${turn} = keyOf(inCache, inStep, firstSlot, slot, 4u * (j + ${turn * lanes}u));`, "\n      ")
  }
      shares[i] = ${
    repeat(Math.ceil(fours / lanes), (turn) => {
      const product = `dot(query[j + ${turn * lanes}u], key${turn})`;
      return (turn + 1) * lanes <= fours ? product : `select(0.0, ${product}, j + ${turn * lanes}u < ${fours}u)`;
    }, " + ")
  };
    }
    workgroupBarrier();
    var most = largest;
    for (var i = thread; i < count; i += ${threads}u) {
      scores[i] = ${repeat(lanes, (j) => `shares[${lanes}u * i + ${j}u]`, " + ")};
      most = max(most, scores[i]);
    }
    totals[thread] = most;
    workgroupBarrier();
    var grown = largest;
    for (var i = 0u; i < min(count, ${threads}u); i++) { grown = max(grown, totals[i]); }
    for (var i = thread; i < count + ${AT_ONCE * groups}u; i += ${threads}u) {
      scores[i] = select(0.0, exp(scores[i] - grown), i < count);
    }
    workgroupBarrier();
    let shrink = exp(largest - grown);
    largest = grown;
    total *= shrink;
    sum *= shrink;
    if (stripe < ${groups}u) {
      for (var i = stripe; i < count; i += ${AT_ONCE * groups}u) {
        ${
    repeat(
      AT_ONCE,
      (k) => `let i${k} = i + ${k * groups}u; let slot${k} = chunk + min(i${k}, count - 1u);`,
      "\n        ",
    )
  }
        ${
    repeat(AT_ONCE, (k) => `let value${k} = valueOf(inCache, inStep, firstSlot, slot${k}, 4u * lane);`, "\n        ")
  }
        ${repeat(AT_ONCE, (k) => `total += scores[i${k}]; sum += scores[i${k}] * value${k};`, "\n        ")}
      }
    }
    workgroupBarrier();
  }
  sums[thread] = sum;
  totals[thread] = total;
  workgroupBarrier();
  if (thread < ${fours}u) {
    for (var i = 1u; i < ${groups}u; i++) {
      sum += sums[thread + i * ${fours}u];
      total += totals[thread + i * ${fours}u];
    }
    y_store4(row * ${heads}u + head, 4u * thread, sum / total);
  }
}`;
  return { name: "attention", code, workgroups: [heads, ...spread(tokens)] };
}
