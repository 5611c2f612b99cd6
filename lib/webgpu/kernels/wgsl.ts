/** What the WGSL of all kernels shares. Letters: N tokens, M of them with logits, S cache slots, V vocabulary. */

/** A kernel for certain sizes: its source, which is also its identity, and how many workgroups run it. */
export interface Kernel {
  /** For people. */
  name: string;
  code: string;
  workgroups: readonly [x: number, y: number, z: number];
}

/** How numbers lie in a storage buffer. Two bfloat16 share a word, the first in its lower half. */
export type Format = "float32" | "bfloat16";

/** A row-major matrix in a storage buffer, or a vector, which is one row. */
export interface Matrix {
  /** Name of its variable. */
  name: string;
  /** Numbers in a row. */
  columns: number;
  format?: Format;
  /** Default: it is only read. */
  access?: "read" | "read_write";
  /** Its numbers are to be written one by one, whatever its width. */
  scalar?: boolean;
  /** It lies in blocks of 4 × 4 (see {@link blocksOf}), and has so many rows. */
  blockRows?: number;
}

/**
 * How many blocks of 4 × 4 a matrix of so many rows and columns has, down and across, zeros beyond its edges. Blocks that stand
 * one above the other are neighbours in memory, and so are the rows of a block: who adds up a few columns reads one stretch.
 */
export function blocksOf(rows: number, columns: number): { down: number; across: number } {
  return { down: Math.ceil(rows / 4), across: Math.ceil(columns / 4) };
}

/** The first binding of every kernel: what changes from step to step, as integers; see {@link stepArray}. */
export const STEP = stepBinding("read");

/** The same, for a kernel that may change it. */
export function stepBinding(access: "read" | "read_write"): string {
  return `@group(0) @binding(0) var<storage, ${access}> step: array<i32>;
fn tokenCount() -> u32 { return u32(step[0]); }
fn wantedCount() -> u32 { return u32(step[1]); }
`;
}

/** Integers before the step's arrays: N, M, and where each array begins, of which there may be so many. */
export const STEP_HEADER = 2 + 62;

/** The i-th number of one of the step's arrays, as unsigned. */
export function stepArray(array: number, i: string): string {
  return `u32(step[u32(step[${2 + array}]) + ${i}])`;
}

/**
 * Declares matrices as bindings 1, 2, … in this order, and a function `<name>4(row, column)` for each one that is read:
 * four neighbours at once, 0 beyond the end of the row. `column` is a multiple of 4. One in blocks has `<name>16(row, column)`,
 * both multiples of 4: a block, whose i-th vector is its i-th row.
 */
export function declare(matrices: readonly Matrix[]): string {
  return matrices.map((matrix, i) => {
    const { name, access = "read", blockRows } = matrix;
    const read = blockRows === undefined
      ? `fn ${name}4(row: u32, column: u32) -> vec4f { ${readFour(matrix)} }`
      : `fn ${name}16(row: u32, column: u32) -> mat4x4f { ${readBlock(matrix, blockRows)} }`;
    return `@group(0) @binding(${i + 1}) var<storage, ${access}> ${name}: array<${elementType(matrix)}>;
${read}
`;
  }).join("");
}

/** Whether four neighbours can be read and written as one vector. */
export function isVectorized({ columns, scalar = false }: Pick<Matrix, "columns" | "scalar">): boolean {
  return columns % 4 === 0 && !scalar;
}

function elementType(matrix: Matrix): string {
  if (matrix.blockRows !== undefined) return matrix.format === "bfloat16" ? "vec4u" : "vec4f";
  if (matrix.format === "bfloat16") return isVectorized(matrix) ? "vec2u" : "u32";
  return isVectorized(matrix) ? "vec4f" : "f32";
}

function readFour(matrix: Matrix): string {
  const { name, columns, format = "float32" } = matrix, first = `row * ${columns}u + column`;
  if (isVectorized(matrix)) {
    return format === "float32" ? `return ${name}[(${first}) / 4u];` : `let two = ${name}[(${first}) / 4u];
  return ${unpacked("two.x", "two.y")};`;
  }
  const element = format === "float32"
    ? `${name}[i]`
    : `bitcast<f32>(select(${name}[i / 2u] << 16u, ${name}[i / 2u] & 0xffff0000u, i % 2u == 1u))`;
  return `var four = vec4f();
  for (var j = 0u; j < 4u; j++) {
    let i = ${first} + j;
    if (column + j < ${columns}u) { four[j] = ${element}; }
  }
  return four;`;
}

function readBlock({ name, columns, format }: Matrix, rows: number): string {
  const block = `(column / 4u * ${blocksOf(rows, columns).down}u + row / 4u)`;
  return format === "bfloat16"
    ? `let at = 2u * ${block}; let a = ${name}[at]; let b = ${name}[at + 1u];
  return mat4x4f(${
      [["a.x", "a.y"], ["a.z", "a.w"], ["b.x", "b.y"], ["b.z", "b.w"]].map(([a, b]) => unpacked(a, b)).join(", ")
    });`
    : `let at = 4u * ${block}; return mat4x4f(${[0, 1, 2, 3].map((i) => `${name}[at + ${i}u]`).join(", ")});`;
}

/** Four bfloat16 from two words. */
function unpacked(a: string, b: string): string {
  return `bitcast<vec4f>(vec4u(${a} << 16u, ${a} & 0xffff0000u, ${b} << 16u, ${b} & 0xffff0000u))`;
}

/** A function `<name>_store4(row, column, four)` that writes to a float32 matrix what lies within its row. */
export function storeFour(matrix: Matrix): string {
  const { name, columns } = matrix;
  const body = isVectorized(matrix)
    ? `${name}[(row * ${columns}u + column) / 4u] = four;`
    : `for (var j = 0u; j < 4u; j++) { if (column + j < ${columns}u) { ${name}[row * ${columns}u + column + j] = four[j]; } }`;
  return `fn ${name}_store4(row: u32, column: u32, four: vec4f) { ${body} }
`;
}

/**
 * A function that combines a value of all `threads` of a workgroup and tells each of them the result: in two levels, because
 * waiting for each other costs more than a few operations one after the other.
 */
export function reduction(
  name: string,
  type: string,
  threads: number,
  combine: (a: string, b: string) => string,
): string {
  const first = Math.min(16, threads), each = threads / first;
  return `var<workgroup> ${name}_of: array<${type}, ${threads}>;
var<workgroup> ${name}_part: array<${type}, ${first}>;
fn ${name}(value: ${type}, thread: u32) -> ${type} {
  ${name}_of[thread] = value;
  workgroupBarrier();
  if (thread < ${first}u) {
    var part = ${name}_of[thread];
    for (var i = 1u; i < ${each}u; i++) { part = ${combine("part", `${name}_of[thread + i * ${first}u]`)}; }
    ${name}_part[thread] = part;
  }
  workgroupBarrier();
  var result = ${name}_part[0];
  for (var i = 1u; i < ${first}u; i++) { result = ${combine("result", `${name}_part[i]`)}; }
  return result;
}
`;
}

/** Sums over a workgroup, of four numbers at a time. */
export function sumOfAll(threads: number): string {
  return reduction("sumOfAll", "vec4f", threads, (a, b) => `${a} + ${b}`);
}

/** 1 for each of the numbers at `column` and the three after it that belong to a row of `columns`, 0 for the others. */
export function inside(columns: number, column: string): string {
  if (columns % 4 === 0) return "vec4f(1)";
  return `select(vec4f(), vec4f(1), ${column} + vec4u(0, 1, 2, 3) < vec4u(${columns}u))`;
}

/** A grid of `count` workgroups; with `row()` in the kernel it may be larger than one dimension of a grid can be. */
export function spread(count: number): [number, number] {
  const y = Math.min(count, 32768);
  return [y, Math.ceil(count / y)];
}

/** As text: `text(i)` for i from 0 to count − 1. */
export function repeat(count: number, text: (i: number) => string, separator = "\n  "): string {
  return Array.from({ length: count }, (_, i) => text(i)).join(separator);
}
