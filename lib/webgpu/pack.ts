/** Weights as kernels read them: in blocks of 4 × 4 or by rows, in float32 or in bfloat16, two of which share a word. */

import * as tf from "@tensorflow/tfjs";
import type { Dtype } from "../backend/ops.ts";
import { blocksOf, type Format } from "./kernels/wgsl.ts";
import type { TfjsOnGpu } from "./tfjs.ts";

/** A weight as the GPU holds it: `values` has two numbers to an int32 if the format is bfloat16. */
export interface Weight {
  values: tf.Tensor;
  format: Format;
  /** K and M. */
  inputs: number;
  outputs: number;
  /** It is [M, K] by rows, not [K, M] in blocks. */
  transposed: boolean;
}

/** Threads of a workgroup, and workgroups of a row of the grid. */
const THREADS = 256, ROW = 32768;

const INDEX = `let i = id.x + id.y * ${THREADS * ROW}u;`;

/** To the nearest bfloat16, ties to even, as float32ToBfloat16 in ../half.ts rounds. */
const ROUND = `fn rounded(bits: u32) -> u32 { return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u; }
fn both(a: u32, b: u32) -> u32 { return rounded(a) | (rounded(b) << 16u); }
`;

const BINDINGS = `@group(0) @binding(0) var<storage, read_write> packed: array<u32>;
@group(0) @binding(1) var<storage, read> unpacked: array<u32>;
`;

const PACK_ROWS = `${BINDINGS}${ROUND}
fn bits(i: u32) -> u32 { return select(0u, unpacked[i], i < arrayLength(&unpacked)); }
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u) {
  ${INDEX}
  if (i < arrayLength(&packed)) { packed[i] = both(bits(2u * i), bits(2u * i + 1u)); }
}`;

/** Rows of a matrix that are bound, the first of them a multiple of 4, into its blocks; a thread makes one. */
function packBlocks(rows: number, columns: number, part: { first: number; count: number }, format: Format): string {
  const { down, across } = blocksOf(rows, columns), words = format === "bfloat16" ? 8 : 16;
  return `${BINDINGS}${ROUND}
fn bits(row: u32, column: u32) -> u32 {
  if (row >= ${part.count}u || column >= ${columns}u) { return 0u; }
  return unpacked[row * ${columns}u + column];
}
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u) {
  ${INDEX}
  let row = i / ${across}u;
  let column = i % ${across}u;
  if (row >= ${Math.ceil(part.count / 4)}u) { return; }
  let to = (column * ${down}u + row + ${part.first / 4}u) * ${words}u;
  for (var j = 0u; j < ${words}u; j++) {
    ${
    format === "bfloat16"
      ? "packed[to + j] = both(bits(4u * row + j / 2u, 4u * column + 2u * (j % 2u)), " +
        "bits(4u * row + j / 2u, 4u * column + 2u * (j % 2u) + 1u));"
      : "packed[to + j] = bits(4u * row + j / 4u, 4u * column + j % 4u);"
  }
  }
}`;
}

/** Packs weights. */
export class Packer {
  /** On this GPU. */
  constructor(private readonly tfjs: TfjsOnGpu) {}

  /** float32 values [K, M] as a weight in blocks. Takes the tensor over. */
  blocks(values: tf.Tensor2D, dtype: Dtype): Pick<Weight, "values" | "format"> {
    const format = dtype === "bfloat16" ? "bfloat16" : "float32", [rows, columns] = values.shape;
    const { down, across } = blocksOf(rows, columns), words = format === "bfloat16" ? 8 : 16;
    const packed = this.tfjs.empty([down * across * words], format === "bfloat16" ? "int32" : "float32");
    const most = Math.floor(this.#mostBytes / 4 / columns / 64) * 64; // of the unpacked rows; all GPUs can bind there
    for (let first = 0; first < rows; first += most) {
      const count = Math.min(most, rows - first), code = packBlocks(rows, columns, { first, count }, format);
      const unpacked = { offset: 4 * first * columns, size: 4 * count * columns };
      this.#run(code, { packed, unpacked: values }, { unpacked }, Math.ceil(count / 4) * across);
    }
    values.dispose();
    return { values: packed, format };
  }

  /** float32 values as a weight by rows. Takes the tensor over. */
  rows(values: tf.Tensor2D, dtype: Dtype): Pick<Weight, "values" | "format"> {
    if (dtype !== "bfloat16") return { values, format: "float32" };
    const packed = this.tfjs.empty([Math.ceil(values.size / 2)], "int32");
    const most = Math.floor(this.#mostBytes / 8 / 64) * 64; // words of the packed one
    for (let first = 0; first < packed.size; first += most) {
      const words = Math.min(most, packed.size - first), numbers = Math.min(2 * words, values.size - 2 * first);
      const parts = {
        packed: { offset: 4 * first, size: 4 * words },
        unpacked: { offset: 8 * first, size: 4 * numbers },
      };
      this.#run(PACK_ROWS, { packed, unpacked: values }, parts, words);
    }
    values.dispose();
    return { values: packed, format: "bfloat16" };
  }

  get #mostBytes(): number {
    return this.tfjs.gpu.device.limits.maxStorageBufferBindingSize;
  }

  /** Runs a kernel on parts of both tensors, or on all of them. */
  #run(
    code: string,
    tensors: { packed: tf.Tensor; unpacked: tf.Tensor },
    parts: { packed?: { offset: number; size: number }; unpacked: { offset: number; size: number } },
    threads: number,
  ): void {
    const { device } = this.tfjs.gpu, pipeline = this.tfjs.pipeline(code, "pack");
    const resources = [
      { buffer: this.tfjs.bufferOf(tensors.packed), ...parts.packed },
      { buffer: this.tfjs.bufferOf(tensors.unpacked), ...parts.unpacked },
    ];
    this.tfjs.flush();
    const encoder = device.createCommandEncoder(), pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(...grid(threads));
    pass.end();
    device.queue.submit([encoder.finish()]);
  }
}

function grid(threads: number): [number, number] {
  const groups = Math.ceil(threads / THREADS);
  return [Math.min(groups, ROW), Math.ceil(groups / ROW)];
}
