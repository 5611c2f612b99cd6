/**
 * Linear layers for few rows. What counts is to read the weights at the full speed of the memory: all workgroups together
 * ask for them at once, each thread four neighbours at a time, and no weight is read twice.
 */

import type { Kernel } from "./wgsl.ts";
import { inside, isVectorized, repeat, spread, sumOfAll } from "./wgsl.ts";
import { describe, type LinearKernelOptions, linearPrelude } from "./linear_frame.ts";

const THREADS = 256;
/** Workgroups that keep a large GPU busy: H100 has 132 processors. */
const ENOUGH = 128;

/** The most turns of a thread that are written out in full: 16 numbers a turn are held in registers. */
const MAX_TURNS = 6;

/** Rows are counted in powers of two, so that few kernels serve all batch sizes. */
function roundUp(rows: number): number {
  return 2 ** Math.ceil(Math.log2(rows));
}

/**
 * Weight [K, M]: a workgroup makes 4 to 32 columns of the result. Its threads share out K among them (split-K within the
 * workgroup) and add up what they found.
 */
export function rowsKernel(options: LinearKernelOptions): Kernel {
  const { inputs: K, outputs: M, norm } = options, R = roundUp(options.rows);
  const fours = Math.ceil(M / 4), steps = Math.ceil(K / 4);
  const columns = [8, 4].find((columns) => fours / columns >= ENOUGH) ?? 2; // in fours
  const slices = THREADS / columns, partials = Math.min(8, slices), batch = Math.min(R, 2), quads = Math.ceil(R / 4);
  const component = (r: number) => "xyzw"[r % 4];
  const within = isVectorized({ columns: K }) ? "" : ` * ${inside(K, "4u * i")}`;
  const statistics = !norm ? "" : `
  // mean and 1/deviation of each row, four rows to a vector
  ${repeat(quads, (q) => `var mean${q} = vec4f();`)}
  for (var i = thread; i < ${steps}u; i += ${THREADS}u) {
    ${repeat(R, (r) => `mean${r >> 2}.${component(r)} += dot(x4(row${r}, 4u * i), vec4f(1));`, "\n    ")}
  }
  ${repeat(quads, (q) => `mean${q} = sumOfAll(mean${q}, thread) / ${K}f;`)}
  ${repeat(quads, (q) => `var scale${q} = vec4f();`)}
  for (var i = thread; i < ${steps}u; i += ${THREADS}u) {
    ${
    repeat(R, (r) =>
      `let d${r} = (x4(row${r}, 4u * i) - mean${r >> 2}.${component(r)})${within};
    scale${r >> 2}.${component(r)} += dot(d${r}, d${r});`, "\n    ")
  }
  }
  ${repeat(quads, (q) => `scale${q} = inverseSqrt(sumOfAll(scale${q}, thread) / ${K}f + ${norm.epsilon}f);`)}`;
  // A thread's turns: at first all that it needs of the weight is asked for, to arrive while the statistics are made; loops
  // are written out, because compilers do not do that to loops that WebGPU guards against running for ever.
  const turns = Math.ceil(steps / slices), together = turns <= MAX_TURNS ? turns : 4;
  const exact = steps === turns * slices && turns % together === 0;
  const fetch = (t: number) =>
    `let i${t} = first + ${t * slices}u; let k${t} = 4u * ${exact ? `i${t}` : `min(i${t}, ${steps - 1}u)`};
  ${repeat(4, (j) => `let w${t}_${j} = weight4(k${t} + ${j}u, column);`)}`;
  const normalised = (r: number, t: number) =>
    norm
      ? `(x4(row${r}, k${t}) - mean${r >> 2}.${component(r)}) * scale${r >> 2}.${component(r)} * gain${t} + shift${t}`
      : `x4(row${r}, k${t})`;
  const add = (t: number) =>
    `${norm ? `let gain${t} = gain4(0u, k${t}); let shift${t} = shift4(0u, k${t});` : ""}
  ${
      repeat(R, (r) => {
        const a = exact ? normalised(r, t) : `select(vec4f(), ${normalised(r, t)}, i${t} < ${steps}u)`;
        const products = repeat(4, (j) => `a${t}_${r}.${"xyzw"[j]} * w${t}_${j}`, " + ");
        return `let a${t}_${r} = ${a}; sum${r} += ${products};`;
      })
    }`;
  const sums = repeat(R, (r) => `var sum${r} = vec4f();`);
  const work = turns <= MAX_TURNS
    ? `let first = slice;
  ${repeat(turns, fetch)}${statistics}
  ${sums}
  ${repeat(turns, add)}`
    : `${statistics}
  ${sums}
  for (var first = slice; first < ${steps}u; first += ${together * slices}u) {
  ${repeat(together, fetch)}
  ${repeat(together, add)}
  }`;
  const code = `${linearPrelude(options)}${norm ? sumOfAll(THREADS) : ""}
var<workgroup> part: array<vec4f, ${THREADS * batch}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let last = rowCount() - 1u;
  ${repeat(R, (r) => `let row${r} = min(${r}u, last);`)}
  let slice = thread / ${columns}u;
  let own = thread % ${columns}u;
  let column = 4u * (group.x * ${columns}u + own);
  ${work}
  ${
    repeat(R / batch, (b) =>
      `${repeat(batch, (r) => `part[${r * THREADS}u + thread] = sum${b * batch + r};`)}
  workgroupBarrier();
  if (slice < ${partials}u) { // each of them makes one partial sum of slices, for all rows of this round
    ${
        repeat(batch, (r) =>
          `var partial${r} = part[${r * THREADS}u + thread];
    for (var i = 1u; i < ${slices / partials}u; i++) { partial${r} += part[${r * THREADS}u + thread + i * ${
            partials * columns
          }u]; }
    part[${r * THREADS}u + thread] = partial${r};`, "\n    ")
      }
  }
  workgroupBarrier();
  if (thread < ${columns * batch}u) {
    var sum = part[slice * ${THREADS}u + own];
    for (var i = 1u; i < ${partials}u; i++) { sum += part[slice * ${THREADS}u + own + i * ${columns}u]; }
    finish4(${b * batch}u + slice, column, sum);
  }${b + 1 < R / batch ? "\n  workgroupBarrier();" : ""}`)
  }
}`;
  return { name: `${R} rows, ${describe(options)}`, code, workgroups: [Math.ceil(fours / columns), 1, 1] };
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
