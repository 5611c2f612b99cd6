/** What a GPU could do at most: how fast it reads its memory, and how fast it multiplies. */

import type { Roofs } from "../backend/types.ts";
import { linearKernel, sharesOf } from "./kernels/linear.ts";
import { type Kernel, STEP_HEADER } from "./kernels/wgsl.ts";
import type { ReadBack } from "./read_back.ts";
import type { TfjsOnGpu } from "./tfjs.ts";

const THREADS = 256, GROUPS = 2048;

/** Sums an array of vectors; each group of threads reads on where the others are. */
const READ = `@group(0) @binding(0) var<storage, read> all: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> sums: array<vec4f>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u) {
  var sum = vec4f();
  for (var i = id.x; i < arrayLength(&all); i += ${THREADS * GROUPS}u) { sum += all[i]; }
  sums[id.x] = sum;
}`;

/**
 * Measures both roofs, the best of a few runs each: the sum of an array much larger than the caches, and the product of two
 * large matrices by the kernel that the layers use, since no other is known to be better on this GPU.
 */
export async function measureGpuRoofs(tfjs: TfjsOnGpu, readBack: ReadBack): Promise<Roofs> {
  const { device, software } = tfjs.gpu, side = software ? 256 : 2048, repeats = software ? 2 : 20;
  const bytes = Math.min(device.limits.maxStorageBufferBindingSize, 2 ** 28);
  const matrix = { rows: side, inputs: side, outputs: side, transposed: false, format: "float32" } as const;
  const layer = { ...matrix, bias: false, gelu: false, accumulate: false, per: "token" } as const;
  const product = linearKernel(layer), results = sharesOf(layer); // it may be shared out if there is little of it
  const header = new Int32Array(STEP_HEADER).fill(side, 0, 1); // N
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffer = (size: number) => device.createBuffer({ size, usage });
  const [array, sums] = [buffer(bytes), buffer(16 * THREADS * GROUPS)];
  const [step, x, weight, y] = [buffer(header.byteLength), ...[1, 1, results].map((n) => buffer(4 * n * side * side))];
  device.queue.writeBuffer(step, 0, header);

  const fastest = async ({ code, name, workgroups }: Kernel, buffers: GPUBuffer[]) => {
    const kernel = tfjs.pipeline(code, name);
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    const group = device.createBindGroup({ layout: kernel.getBindGroupLayout(0), entries });
    let best = Infinity;
    for (let run = 0; run < 5; run++) {
      const encoder = device.createCommandEncoder(), pass = encoder.beginComputePass();
      pass.setPipeline(kernel);
      pass.setBindGroup(0, group);
      for (let i = 0; i < repeats; i++) pass.dispatchWorkgroups(...workgroups);
      pass.end();
      const start = performance.now();
      await readBack.submitAndRead(encoder, [{ buffer: buffers.at(-1)!, byteOffset: 0, byteLength: 4 }]);
      best = Math.min(best, (performance.now() - start) / 1000 / repeats);
    }
    return best;
  };
  const reading = await fastest({ name: "read", code: READ, workgroups: [GROUPS, 1, 1] }, [array, sums]);
  const multiplying = await fastest(product, [step, x, weight, y]);
  for (const buffer of [array, sums, step, x, weight, y]) buffer.destroy();
  return { bandwidth: bytes / reading, flops: 2 * side ** 3 / multiplying };
}
