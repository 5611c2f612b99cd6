/**
 * Linear layers for few rows. What counts is to read the weights at the full speed of the memory: all workgroups together
 * ask for them at once, each thread blocks of 4 × 4 that are side by side in memory, and no weight is read twice.
 */

import type { Kernel } from "./wgsl.ts";
import { blocksOf, inside, isVectorized, repeat, spread } from "./wgsl.ts";
import { describe, type LinearKernelOptions, linearPrelude } from "./linear_frame.ts";

const THREADS = 256;

/** Threads that keep a large GPU busy; and turns that each of them should have, if it comes to that. */
const ENOUGH = 60_000, ENOUGH_TURNS = 3;
/** Bytes of the weight that a thread asks for at once, in registers. */
const MAX_BYTES = 384;
/** Products of blocks that are written out: more do not stay in the GPU's cache of instructions. */
const MAX_PRODUCTS = 8;
/** What a workgroup adds up together, and in how many parts at first. */
const BATCH = 2, PARTS = 8;

/** Rows are counted in powers of two, so that few kernels serve all batch sizes. */
function roundUp(rows: number): number {
  return 2 ** Math.ceil(Math.log2(rows));
}

/** How many threads share out the blocks that are above each other: a power of two. */
function slicesOf({ down, across }: ReturnType<typeof blocksOf>): number {
  let slices = 32;
  while (2 * slices <= THREADS && slices * across < ENOUGH && 2 * slices * ENOUGH_TURNS <= down) slices *= 2;
  return slices;
}

/**
 * Weight [K, M] in blocks: the threads of a workgroup share out the blocks that are above each other (split-K within the
 * workgroup), and add up what they found.
 *
 * Layer norm does not wait for the statistics. With a pivot p = x₀, gain g, shift s, mean m of x − p and deviation d it is
 * ((x − p − m)/d·g + s)·W = (Σ (x − p)·g·W − m·Σ g·W)/d + Σ s·W, and all of these sums are made at once. The pivot keeps x − p
 * exact if the numbers of a row are far from zero, and close together.
 */
export function rowsKernel(options: LinearKernelOptions): Kernel {
  const { inputs: K, outputs: M, norm, format } = options, R = roundUp(options.rows);
  const blocks = blocksOf(K, M), { down, across } = blocks, slices = slicesOf(blocks);
  const threads = Math.max(slices, THREADS / 2), columns = threads / slices, turns = Math.ceil(down / slices);
  const quads = (prefix: string) => Array.from({ length: Math.ceil(R / 4) }, (_, q) => `${prefix}${q}`);
  // What each thread finds and all of them add up: the sums, and for layer norm what belongs to it.
  const found = [
    ...Array.from({ length: R }, (_, r) => `sum${r}`),
    ...norm ? ["gains", "shifts", ...quads("total"), ...quads("square")] : [],
  ];
  const within = isVectorized({ columns: K }) ? "" : ` * ${inside(K, "k")}`;
  const fetch = (t: number) =>
    `let i${t} = min(first + ${t * slices}u, ${down - 1}u); let w${t} = weight16(4u * i${t}, column);`;
  const add = (t: number, exact: boolean) => {
    const body = `let k = 4u * i${t};
  ${norm ? `let gain = gain4(0u, k); let shift = shift4(0u, k); gains += w${t} * gain; shifts += w${t} * shift;` : ""}
  ${
      repeat(R, (r) => {
        if (!norm) return `sum${r} += w${t} * x4(row${r}, k);`;
        const part = `${r >> 2}.${"xyzw"[r % 4]}`;
        return `let a${r} = (x4(row${r}, k) - pivot${r})${within};
    sum${r} += w${t} * (a${r} * gain); total${part} += dot(a${r}, vec4f(1)); square${part} += dot(a${r}, a${r});`;
      })
    }`;
    return exact ? `{ ${body} }` : `if (first + ${t * slices}u < ${down}u) { ${body} }`;
  };
  // Loops are written out, because compilers do not do that to loops that WebGPU guards against running for ever.
  const most = Math.min(MAX_BYTES / (format === "bfloat16" ? 32 : 64), MAX_PRODUCTS / R), together = Math.min(most, 8);
  const work = turns <= most
    ? `let first = slice;
  ${repeat(turns, fetch)}
  ${repeat(turns, (t) => add(t, (t + 1) * slices <= down))}`
    : `for (var first = slice; first < ${down}u; first += ${together * slices}u) {
  ${repeat(together, fetch)}
  ${repeat(together, (t) => add(t, t === 0 || down % (together * slices) === 0))}
  }`;
  const batch = Math.min(BATCH, found.length), partials = PARTS;
  const sumUp = (b: number) => {
    const mine = found.slice(b * batch, (b + 1) * batch);
    return `${mine.map((name, v) => `part[${v * threads}u + thread] = ${name};`).join(" ")}
  workgroupBarrier();
  for (var i = thread; i < ${mine.length * columns * partials}u; i += ${threads}u) {
    let at = i / ${columns * partials}u * ${threads}u + i % ${columns * partials}u;
    var sum = part[at];
    ${repeat(slices / partials - 1, (j) => `sum += part[at + ${(j + 1) * columns * partials}u];`, " ")}
    partial[i] = sum;
  }
  workgroupBarrier();
  if (thread < ${mine.length * columns}u) {
    let at = thread / ${columns}u * ${columns * partials}u + thread % ${columns}u;
    var sum = partial[at];
    ${repeat(partials - 1, (j) => `sum += partial[at + ${(j + 1) * columns}u];`, " ")}
    all[${b * batch * columns}u + thread] = sum;
  }`;
  };
  const at = (name: string) => `all[${found.indexOf(name) * columns}u + own]`;
  const normalised = `let quad = row / 4u;
    let mean = all[${found.indexOf("total0") * columns}u + quad * ${columns}u + own][row % 4u] / ${K}f;
    let square = all[${found.indexOf("square0") * columns}u + quad * ${columns}u + own][row % 4u] / ${K}f;
    let scale = inverseSqrt(square - mean * mean + ${norm?.epsilon}f);
    sum = (sum - mean * ${at("gains")}) * scale + ${at("shifts")};`;
  const code = `${linearPrelude(options)}
var<workgroup> part: array<vec4f, ${threads * batch}>;
var<workgroup> partial: array<vec4f, ${columns * batch * partials}>;
var<workgroup> all: array<vec4f, ${found.length * columns}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  ${R > 1 ? "let last = rowCount() - 1u;" : ""}
  ${
    repeat(R, (r) =>
      `let row${r} = ${r ? `min(${r}u, last)` : "0u"};${norm ? ` let pivot${r} = x4(row${r}, 0u).x;` : ""}`)
  }
  let slice = thread / ${columns}u;
  let own = thread % ${columns}u;
  let column = 4u * ((group.x + group.y * 32768u) * ${columns}u + own);
  let row = slice; // whose result it finishes, if there is such a row
  let met = meets(row, column);
  ${found.map((name) => `var ${name} = vec4f();`).join(" ")}
  ${work}
  ${repeat(Math.ceil(found.length / batch), sumUp)}
  workgroupBarrier();
  if (row < ${R}u) {
    var sum = all[row * ${columns}u + own];
    ${norm ? normalised : ""}
    finish4(row, column, sum, met);
  }
}`;
  return { name: `${R} rows, ${describe(options)}`, code, workgroups: [...spread(Math.ceil(across / columns)), 1] };
}

/**
 * Weight [M, K]: 16 threads add up four columns of the result, along four rows of the weight. For the head, whose M is the
 * vocabulary, so that there are enough workgroups without more ado.
 */
export function transposedRowsKernel(options: LinearKernelOptions): Kernel {
  const { inputs: K, outputs: M, part: y } = options, R = roundUp(options.rows);
  const lanes = 16, columns = 4 * THREADS / lanes, batch = Math.min(R, 2);
  const code = `${linearPrelude(options)}
var<workgroup> part: array<vec4f, ${THREADS * batch}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let last = rowCount() - 1u;
  let lane = thread % ${lanes}u;
  let first = (group.x + group.y * 32768u) * ${columns}u;
  let own = first + 4u * (thread / ${lanes}u);
  ${repeat(4, (j) => `let column${j} = min(own + ${j}u, ${M - 1}u);`)}
  ${repeat(R, (r) => `var sums${r} = vec4f(); let row${r} = min(${r}u, last);`)}
  for (var k = 4u * lane; k < ${K}u; k += ${4 * lanes}u) {
    ${repeat(4, (j) => `let w${j} = weight4(column${j}, k);`, "\n    ")}
    ${
    repeat(
      R,
      (r) =>
        `let a${r} = x4(row${r}, k); sums${r} += vec4f(dot(w0, a${r}), dot(w1, a${r}), dot(w2, a${r}), dot(w3, a${r}));`,
      "\n    ",
    )
  }
  }
  ${
    repeat(R / batch, (b) =>
      `${repeat(batch, (r) => `part[${r * THREADS}u + thread] = sums${b * batch + r};`)}
  workgroupBarrier();
  {
    let r = thread / ${columns}u;
    let c = thread % ${columns}u;
    let row = ${b * batch}u + r;
    if (r < ${batch}u && row <= last && first + c < ${M}u) {
      var sum = 0.0;
      for (var i = 0u; i < ${lanes}u; i++) { sum += part[r * ${THREADS}u + c / 4u * ${lanes}u + i][c % 4u]; }
      y[row * ${y?.columns ?? M}u + first + c + ${y?.first ?? 0}u] = sum;
    }
  }${b + 1 < R / batch ? "\n  workgroupBarrier();" : ""}`)
  }
}`;
  return { name: `${R} rows, ${describe(options)}`, code, workgroups: [...spread(Math.ceil(M / columns)), 1] };
}
