/**
 * Linear layers for many rows: matrix products in tiles. A workgroup makes a tile of the result; it takes K a little at a
 * time into workgroup memory, where each number is used by a whole row or column of threads, and each thread keeps a block
 * of the tile in its registers, so that it multiplies several times for each number that it fetches from there. The numbers
 * of the next round are on their way from memory while those of this one are multiplied.
 */

import type { Kernel } from "./wgsl.ts";
import { inside, isVectorized, repeat } from "./wgsl.ts";
import { describe, type LinearKernelOptions, linearPrelude } from "./linear_frame.ts";

/** How the work is cut: the result into tiles of rows × columns, these into blocks, one a thread; K into rounds. */
interface Tiling {
  rows: number;
  columns: number;
  /** Rows and columns of a thread's block: 4 or 8. */
  block: number;
  /** How much of K a round takes. */
  depth: number;
  /** Groups of threads that share out the rounds of a tile and add up what they have in the end. */
  groups: number;
}

/** From the largest tile, which reads least, to the smallest, of which there are most. All have 256 threads. */
const TILINGS: readonly Tiling[] = [
  { rows: 128, columns: 128, block: 8, depth: 8, groups: 1 },
  { rows: 64, columns: 64, block: 4, depth: 16, groups: 1 },
  { rows: 32, columns: 128, block: 4, depth: 16, groups: 1 },
  { rows: 32, columns: 32, block: 4, depth: 16, groups: 4 },
];
const THREADS = 256;

/** Tiles that keep a large GPU busy. */
const ENOUGH = 100;

/** The largest tiles of which there are enough, unless more than a third of their rows would be empty. */
function chooseTiling({ rows, outputs }: LinearKernelOptions): Tiling {
  const fits = (tiling: Tiling) => {
    const down = Math.ceil(rows / tiling.rows), across = Math.ceil(outputs / tiling.columns);
    return down * across >= ENOUGH && (rows / (down * tiling.rows) > 2 / 3 || tiling.rows === 32);
  };
  return TILINGS.find(fits) ?? TILINGS.at(-1)!;
}

/** See linear.ts. */
export function tilesKernel(options: LinearKernelOptions): Kernel {
  const { inputs: K, outputs: M, transposed, norm } = options;
  const { rows, columns, block, groups, ...tiling } = chooseTiling(options);
  // With statistics beside it, the deepest tile would not fit into the 16 kB that every GPU has.
  const depth = norm && groups > 1 ? tiling.depth / 2 : tiling.depth;
  const threads = THREADS / groups, across = columns / block;
  const halves = block / 4; // a block is halves × halves pieces of 4 × 4, half a tile apart, so that banks do not conflict
  const rounds = Math.ceil(K / depth / groups), exact = K === rounds * depth * groups;
  const xFours = depth * rows / 4, weightFours = depth * columns / 4;

  /** `body` for each of `count` things that the threads of a group move together; `b` is the thing's number. */
  const share = (count: number, body: (turn: number) => string) =>
    repeat(Math.ceil(count / threads), (turn) => {
      const b = `own + ${turn * threads}u`, condition = count % threads ? `if (${b} < ${count}u) ` : "";
      return `${condition}{ let b = ${b}; ${body(turn)} }`;
    });
  const variables = (name: string, count: number, each: number) =>
    repeat(Math.ceil(count / threads) * each, (i) => `var ${name}${i} = vec4f();`);

  // Pieces of 4 × 4, four along K of each of four rows, are transposed on their way into workgroup memory.
  const xPieces = xFours / 4, weightPieces = weightFours / 4, deep = depth / 4;
  const loadPieces = (name: string, read: (row: string) => string) => (turn: number) =>
    `let k = k0 + 4u * (b % ${deep}u); let r = 4u * (b / ${deep}u); ${
      repeat(4, (i) => `${name}${4 * turn + i} = ${read(`r + ${i}u`)};`, " ")
    }`;
  const storePieces = (name: string, at: string, width: number) => (turn: number) =>
    `let to = ${at} + 4u * (b % ${deep}u) * ${width / 4}u + b / ${deep}u; ${
      repeat(4, (j) => {
        const column = repeat(4, (i) => `${name}${4 * turn + i}.${"xyzw"[j]}`, ", ");
        return `tile[to + ${j * width / 4}u] = vec4f(${column});`;
      }, " ")
    }`;
  const x = (r: string) => `input4(firstRow, ${r}, k, last)`;
  const load = `${share(xPieces, loadPieces("x", x))}
  ${
    transposed ? share(weightPieces, loadPieces("w", (r) => `weight4(min(firstColumn + ${r}, ${M - 1}u), k)`)) : share(
      weightFours,
      (turn) => `w${turn} = weight4(k0 + b / ${columns / 4}u, firstColumn + 4u * (b % ${columns / 4}u));`,
    )
  }`;
  const store = `${share(xPieces, storePieces("x", "xAt", rows))}
  ${
    transposed
      ? share(weightPieces, storePieces("w", "weightAt", columns))
      : share(weightFours, (turn) => `tile[weightAt + b] = w${turn};`)
  }`;

  const within = isVectorized({ columns: K }) ? "" : ` * ${inside(K, "k")}`, perRow = THREADS / rows;
  const statistics = `
fn addUp(value: f32, thread: u32) -> f32 {
  shares[thread] = value;
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < ${perRow}u; i++) { sum += shares[thread / ${perRow}u * ${perRow}u + i]; }
  workgroupBarrier();
  return sum;
}
fn measure(firstRow: u32, last: u32, thread: u32) {
  let r = thread / ${perRow}u;
  let row = min(firstRow + r, last);
  var sum = 0.0;
  for (var k = 4u * (thread % ${perRow}u); k < ${K}u; k += ${4 * perRow}u) { sum += dot(x4(row, k), vec4f(1)); }
  let mean = addUp(sum, thread) / ${K}f;
  var squares = 0.0;
  for (var k = 4u * (thread % ${perRow}u); k < ${K}u; k += ${4 * perRow}u) {
    let d = (x4(row, k) - mean)${within};
    squares += dot(d, d);
  }
  let variance = addUp(squares, thread) / ${K}f;
  statistics[r] = vec2f(mean, inverseSqrt(variance + ${norm?.epsilon ?? 0}f));
  workgroupBarrier();
}
var<workgroup> shares: array<f32, ${THREADS}>;
var<workgroup> statistics: array<vec2f, ${rows}>;
`;
  const read = norm ? "(x4(row, k) - statistics[r].x) * statistics[r].y * gain4(0u, k) + shift4(0u, k)" : "x4(row, k)";
  const place = (index: string, half: number, width: number) => `${half * width / halves}u + 4u * ${index}`;
  // Written out for each k, because compilers do not do that to loops that WebGPU guards against running for ever.
  const multiply = (k: number) => {
    const half = (at: string, width: number, h: number, own: string) =>
      `tile[${at} + ${k * width / 4 + h * width / 4 / halves}u + ${own}]`;
    return `{
    ${repeat(halves, (h) => `let a${h} = ${half("xAt", rows, h, "ty")};`)}
    ${repeat(halves, (h) => `let b${h} = ${half("weightAt", columns, h, "tx")};`)}
    ${
      repeat(block * halves, (s) => {
        const i = Math.floor(s / halves);
        return `sum${s} += a${i >> 2}.${"xyzw"[i % 4]} * b${s % halves};`;
      })
    }
  }`;
  };
  const code = `${linearPrelude(options)}${norm ? statistics : ""}
// For each group of threads, x [depth, rows] and weight [depth, columns] of a round, in fours.
var<workgroup> tile: array<vec4f, ${Math.max(groups * (xFours + weightFours), groups > 1 ? THREADS : 0)}>;

/** Four neighbours of row r of the tile, normalised if they are to be. */
fn input4(firstRow: u32, r: u32, k: u32, last: u32) -> vec4f {
  let row = min(firstRow + r, last);
  return ${exact ? read : `select(vec4f(), ${read}, k < ${K}u)`};
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let own = thread % ${threads}u;
  let party = thread / ${threads}u;
  let tx = own % ${across}u;
  let ty = own / ${across}u;
  let firstRow = group.y * ${rows}u;
  let firstColumn = group.x * ${columns}u;
  let last = rowCount() - 1u;
  let xAt = party * ${xFours + weightFours}u;
  let weightAt = xAt + ${xFours}u;
  ${norm ? "measure(firstRow, last, thread);" : ""}
  ${repeat(block * halves, (i) => `var sum${i} = vec4f();`)}
  ${variables("x", xPieces, 4)}
  ${transposed ? variables("w", weightPieces, 4) : variables("w", weightFours, 1)}
  var k0 = party * ${depth}u;
  ${load}
  for (var round = 0u; round < ${rounds}u; round++) {
  ${store}
  workgroupBarrier();
  k0 += ${depth * groups}u;
  if (round + 1u < ${rounds}u) {
  ${load}
  }
  ${repeat(depth, multiply)}
  workgroupBarrier();
  }
  ${
    groups === 1 ? "" : repeat(block * halves, (s) =>
      `tile[thread] = sum${s};
  workgroupBarrier();
  ${repeat(groups - 1, (g) => `if (party == 0u) { sum${s} += tile[own + ${(g + 1) * threads}u]; }`)}
  workgroupBarrier();`)
  }
  if (party > 0u) { return; }
  ${
    repeat(block * halves, (s) => {
      const i = Math.floor(s / halves), h = s % halves;
      const row = `firstRow + ${place("ty", i >> 2, rows)} + ${i % 4}u`;
      return `finish4(${row}, firstColumn + ${place("tx", h, columns)}, sum${s});`;
    })
  }
}`;
  return {
    name: `tiles of ${rows}×${columns}, ${describe(options)}`,
    code,
    workgroups: [Math.ceil(M / columns), Math.ceil(options.rows / rows), 1],
  };
}
