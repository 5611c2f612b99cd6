/**
 * Linear layers for many rows: matrix products in tiles. A workgroup makes a tile of the result; it takes K a little at a
 * time into workgroup memory, where each number is used by a whole row or column of threads, and each thread keeps a block
 * of the tile in its registers, so that it multiplies several times for each number that it fetches from there. The numbers
 * of the next round are on their way from memory while those of this one are multiplied.
 */

import type { Kernel } from "./wgsl.ts";
import { repeat } from "./wgsl.ts";
import { describe, type LinearKernelOptions, linearPrelude } from "./linear_frame.ts";

/** How the work is cut: the result into tiles of rows × columns, these into blocks, one a thread; K into rounds. */
interface Tiling {
  rows: number;
  columns: number;
  /** Rows and columns of a thread's block: 4 or 8. */
  block: number;
  /** How much of K a group of threads takes in a round. */
  depth: number;
  /** Groups of threads that share out the rounds of a tile and add up what they have in the end. */
  groups: number;
  /** Microseconds that a round took on an H100. */
  round: number;
}

/** From the largest tile, which reads least, to the smallest. All have 256 threads. */
const TILINGS: readonly Tiling[] = [
  { rows: 128, columns: 128, block: 8, depth: 16, groups: 1, round: 1.6 },
  { rows: 64, columns: 64, block: 8, depth: 8, groups: 4, round: 1.1 },
  { rows: 32, columns: 32, block: 4, depth: 16, groups: 4, round: 1.0 },
];
const THREADS = 256;

/** Tiles that an H100 works on at a time; how many microseconds another kernel takes, and the sum of a million numbers. */
const AT_ONCE = 132, ANOTHER_KERNEL = 3, MILLION = 2;
/** Shares of a tile, at most; shares of all tiles, which bounds the memory that they take; rounds that each should have. */
const MAX_SHARES = 16, MAX_ALL_SHARES = 4 * AT_ONCE, MIN_ROUNDS = 3;

/** A tiling, and among how many workgroups the rounds of each tile are shared out. */
interface Cut {
  tiling: Tiling;
  shares: number;
}

/**
 * The cut that should take least time. Where there are fewer tiles than the GPU has processors, several workgroups share out
 * the rounds of each (split-K), and another kernel adds up what they have.
 */
function cutOf({ rows, inputs, outputs, transposed }: LinearKernelOptions): Cut {
  let best: Cut & { cost: number } | undefined;
  for (const tiling of TILINGS) {
    const tiles = Math.ceil(rows / tiling.rows) * Math.ceil(outputs / tiling.columns),
      rounds = roundsOf(tiling, inputs);
    const limits = [MAX_SHARES, Math.floor(MAX_ALL_SHARES / tiles), Math.floor(rounds / MIN_ROUNDS)];
    const most = transposed ? 1 : Math.max(1, Math.min(...limits));
    for (let wanted = 1; wanted <= most; wanted++) {
      const each = Math.ceil(rounds / wanted), shares = Math.ceil(rounds / each);
      const sum = shares > 1 ? ANOTHER_KERNEL + MILLION * shares * rows * outputs / 1e6 : 0;
      const cost = Math.ceil(tiles * shares / AT_ONCE) * each * tiling.round + sum;
      if (!best || cost < best.cost) best = { tiling, shares, cost };
    }
  }
  return best!;
}

function roundsOf({ depth, groups }: Tiling, inputs: number): number {
  return Math.ceil(inputs / depth / groups);
}

/** Among how many workgroups each tile of a linear layer of so many rows is shared out. */
export function sharesOf(options: LinearKernelOptions): number {
  return cutOf(options).shares;
}

/** shares [shares, N, M] -> y [N, M], with what stands around the layer. Bindings: step, shares, y, then bias [M] if there is one. */
export function sumKernel(options: LinearKernelOptions): Kernel {
  const { rows, outputs } = options, shares = sharesOf(options), across = Math.ceil(outputs / 4);
  const code = `${linearPrelude(options, [{ name: "shares", columns: 4 * across }])}
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x / ${across}u;
  let column = 4u * (id.x % ${across}u);
  if (row >= rowCount()) { return; }
  ${repeat(shares, (i) => `let share${i} = shares4(${i}u * rowCount() + row, column);`)}
  finish4(row, column, ${repeat(shares, (i) => `share${i}`, " + ")}, meets(row, column));
}`;
  return { name: `sum of ${shares} shares`, code, workgroups: [Math.ceil(rows * across / THREADS), 1, 1] };
}

/**
 * See linear.ts; any layer norm comes before it. If the layer is shared out, it gives the shares, and nothing stands around
 * it.
 */
export function tilesKernel(options: LinearKernelOptions): Kernel {
  const { inputs: K, outputs: M, transposed } = options, { tiling, shares } = cutOf(options);
  const { rows, columns, block, groups, depth } = tiling,
    rounds = roundsOf(tiling, K),
    each = Math.ceil(rounds / shares);
  const threads = THREADS / groups, across = columns / block;
  const halves = block / 4; // a block is halves × halves pieces of 4 × 4, half a tile apart, so that banks do not conflict
  const exact = K === rounds * depth * groups;
  const deep = depth / 4, xPieces = rows / 4 * deep, weightPieces = columns / 4 * deep;
  if (xPieces + weightPieces > threads) throw new Error("A thread moves one piece.");
  const party = groups > 1 ? "party" : "0u";

  // Each round, some threads fetch 4 × 4 numbers of x, others of the weight: four along K of each of four rows or columns.
  // If these are rows in memory, they are transposed on their way into workgroup memory.
  const guarded = (read: string) => exact ? read : `select(vec4f(), ${read}, k < ${K}u)`;
  const load = `if (movesX) {
    ${repeat(4, (i) => `piece[${i}] = ${guarded(`x4(min(firstRow + 4u * quad + ${i}u, last), k)`)};`, "\n    ")}
  } else if (movesWeight) {
    ${
    transposed
      ? repeat(4, (i) =>
        `piece[${i}] = ${guarded(`weight4(min(firstColumn + 4u * quad + ${i}u, ${M - 1}u), k)`)};`, "\n    ")
      : `piece = weight16(k, firstColumn + 4u * quad);`
  }
  }`;
  const store = `if (movesX) {
    let turned = transpose(piece);
    ${repeat(4, (j) => `xs[${party}][inRound + ${j}u][quad] = turned[${j}];`, " ")}
  } else if (movesWeight) {
    ${transposed ? "let turned = transpose(piece);" : ""}
    ${repeat(4, (j) => `weights[${party}][inRound + ${j}u][quad] = ${transposed ? "turned" : "piece"}[${j}];`, " ")}
  }`;
  const place = (index: string, half: number, width: number) => `${half * width / halves}u + 4u * ${index}`;
  // Written out for each k, because compilers do not do that to loops that WebGPU guards against running for ever.
  const multiply = (k: number) =>
    `{
    ${repeat(halves, (h) => `let a${h} = xs[${party}][${k}][ty + ${h * rows / 4 / halves}u];`)}
    ${repeat(halves, (h) => `let b${h} = weights[${party}][${k}][tx + ${h * columns / 4 / halves}u];`)}
    ${
      repeat(block * halves, (s) => {
        const i = Math.floor(s / halves);
        return `sum${s} += a${i >> 2}.${"xyzw"[i % 4]} * b${s % halves};`;
      })
    }
  }`;
  const shared = { bias: false, gelu: false, accumulate: false, part: { first: 0, columns: 4 * Math.ceil(M / 4) } };
  const code = `${linearPrelude(shares > 1 ? { ...options, ...shared } : options)}
// For each group of threads, x and weight of a round, in fours of rows and of columns.
var<workgroup> xs: array<array<array<vec4f, ${rows / 4}>, ${depth}>, ${groups}>;
var<workgroup> weights: array<array<array<vec4f, ${columns / 4}>, ${depth}>, ${groups}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let own = thread % ${threads}u;
  let party = thread / ${threads}u;
  let tx = own % ${across}u;
  let ty = own / ${across}u;
  let firstRow = group.y * ${rows}u;
  let firstColumn = group.x * ${columns}u;
  let last = rowCount() - 1u;
  let movesX = own < ${xPieces}u;
  let movesWeight = !movesX && own < ${xPieces + weightPieces}u;
  let number = select(own - ${xPieces}u, own, movesX);
  let inRound = 4u * (number % ${deep}u);
  let quad = number / ${deep}u;
  ${repeat(block * halves, (i) => `var sum${i} = vec4f();`)}
  var piece: mat4x4f;
  ${
    shares > 1
      ? `let firstRound = group.z * ${each}u;
  let rounds = min(${each}u, ${rounds}u - firstRound);`
      : `let firstRound = 0u;
  let rounds = ${rounds}u;`
  }
  var k = firstRound * ${depth * groups}u + party * ${depth}u + inRound;
  ${load}
  for (var round = 0u; round < rounds; round++) {
  ${store}
  workgroupBarrier();
  k += ${depth * groups}u;
  if (round + 1u < rounds) {
  ${load}
  }
  ${repeat(depth, multiply)}
  workgroupBarrier();
  }
  ${
    groups === 1 ? "" : repeat(block * halves, (s) => {
      const at = (g: string) => `weights[${g}][own / ${columns / 4}u][own % ${columns / 4}u]`;
      return `${at("party")} = sum${s};
  workgroupBarrier();
  if (party == 0u) { sum${s} += ${repeat(groups - 1, (g) => at(`${g + 1}u`), " + ")}; }
  workgroupBarrier();`;
    })
  }
  if (party > 0u) { return; }
  ${
    repeat(block * halves, (s) => {
      const i = Math.floor(s / halves), h = s % halves;
      const row = `firstRow + ${place("ty", i >> 2, rows)} + ${i % 4}u`,
        column = `firstColumn + ${place("tx", h, columns)}`;
      return shares > 1
        ? `if (${row} <= last && ${column} < ${M}u) { y_store4(group.z * (last + 1u) + ${row}, ${column}, sum${s}); }`
        : `finish4(${row}, ${column}, sum${s}, meets(${row}, ${column}));`;
    })
  }
}`;
  return {
    name: `${shares > 1 ? `${shares} shares of ` : ""}tiles of ${rows}×${columns}, ${describe(options)}`,
    code,
    workgroups: [Math.ceil(M / columns), Math.ceil(options.rows / rows), shares],
  };
}
