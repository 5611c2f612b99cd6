/** Weights in bfloat16: half the bytes, two to a word, so that no GPU needs to know the type. */

import * as tf from "@tensorflow/tfjs";
import type { Dtype } from "../backend/ops.ts";
import type { Weight } from "./expression.ts";
import type { TfjsOnGpu } from "./tfjs.ts";

/** Threads of a workgroup, and workgroups of a row of the grid. */
const THREADS = 256, ROW = 32768;

const INDEX = `let i = id.x + id.y * ${THREADS * ROW}u;`;

/** To the nearest bfloat16, ties to even, as float32ToBfloat16 in ../half.ts rounds. */
const PACK = `@group(0) @binding(0) var<storage, read_write> packed: array<u32>;
@group(0) @binding(1) var<storage, read> unpacked: array<u32>;
fn rounded(i: u32) -> u32 {
  if (i >= arrayLength(&unpacked)) { return 0u; }
  let bits = unpacked[i];
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u) {
  ${INDEX}
  if (i < arrayLength(&packed)) { packed[i] = rounded(2u * i) | (rounded(2u * i + 1u) << 16u); }
}`;

/** Packs weights. */
export class Packer {
  /** On this GPU. */
  constructor(private readonly tfjs: TfjsOnGpu) {}

  /** float32 values as a weight of that type. Takes the tensor over. */
  pack(values: tf.Tensor2D, dtype: Dtype): Pick<Weight, "values" | "format"> {
    if (dtype !== "bfloat16") return { values, format: "float32" };
    const packed = this.tfjs.empty([Math.ceil(values.size / 2)], "int32");
    this.#run(packed, values);
    values.dispose();
    return { values: packed, format: "bfloat16" };
  }

  /** Runs the kernel on both tensors, in pieces that can be bound. */
  #run(packed: tf.Tensor, unpacked: tf.Tensor): void {
    const { device } = this.tfjs.gpu, pipeline = this.tfjs.pipeline(PACK, "pack");
    const buffers = { packed: this.tfjs.bufferOf(packed), unpacked: this.tfjs.bufferOf(unpacked) };
    const most = Math.floor(device.limits.maxStorageBufferBindingSize / 8 / 64) * 64; // words of the packed one
    this.tfjs.flush();
    const encoder = device.createCommandEncoder(), pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    for (let first = 0; first < packed.size; first += most) {
      const words = Math.min(most, packed.size - first), numbers = Math.min(2 * words, unpacked.size - 2 * first);
      const resources = [
        { buffer: buffers.packed, offset: 4 * first, size: 4 * words },
        { buffer: buffers.unpacked, offset: 8 * first, size: 4 * numbers },
      ];
      pass.setBindGroup(
        0,
        device.createBindGroup({
          layout: pipeline.getBindGroupLayout(0),
          entries: resources.map((resource, binding) => ({ binding, resource })),
        }),
      );
      pass.dispatchWorkgroups(...grid(numbers));
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
  }
}

function grid(threads: number): [number, number] {
  const groups = Math.ceil(threads / THREADS);
  return [Math.min(groups, ROW), Math.ceil(groups / ROW)];
}
