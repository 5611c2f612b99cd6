/**
 * Where the time of a captured decode step on WebGPU goes: each of its kernels run many times over.
 *
 *     deno run -A lib/bench/peers/webgpu_profile.ts [--model gpt2] [--batch-sizes 1,128] [--repeats 50] [--dtype float32]
 */

import { parseArgs } from "node:util";
import { padBatch } from "../../tokenizer/batch.ts";
import { table } from "../../util/table.ts";
import { loadOrMakeModel } from "../../cli/model_flags.ts";
import { FOX } from "../fox.ts";
import { decodeStep, prefill } from "../../engine/generate.ts";
import { median } from "../../util/median.ts";

const { values: flags } = parseArgs({
  options: {
    model: { type: "string", default: "gpt2" },
    dtype: { type: "string", default: "float32" },
    "batch-sizes": { type: "string", default: "1,128" },
    repeats: { type: "string", default: "50" },
    prefill: { type: "boolean", default: false },
  },
});
const repeats = Number(flags.repeats);

/** A dispatch as it was recorded. */
interface Dispatch {
  pipeline: GPUComputePipeline;
  bindGroup: GPUBindGroup;
  workgroups: [number, number?, number?];
}

let device!: GPUDevice;
const { requestDevice } = GPUAdapter.prototype;
GPUAdapter.prototype.requestDevice = async function (options) {
  return device = await requestDevice.call(this, options);
};
const { model } = await loadOrMakeModel(flags.model, { backend: "webgpu", dtype: flags.dtype });
using _ = model;
for (const batchSize of flags["batch-sizes"].split(",").map(Number)) {
  const inputs = padBatch(Array(batchSize).fill(FOX.map((id) => id % model.config.vocab_size)), { padTokenId: 0 });
  const options = { maxTokens: 9, ignoreEos: true };
  using generation = await prefill(model, inputs, options);
  for (let i = 0; i < 2; i++) await decodeStep(model, generation);
  const step = flags.prefill
    ? async () => (await prefill(model, inputs, options))[Symbol.dispose]()
    : () => decodeStep(model, generation);
  const recorded = await record(step);
  const seconds: number[] = [];
  for (let i = 0; i < 4; i++) {
    const start = performance.now();
    await step();
    seconds.push((performance.now() - start) / 1000);
  }
  const kinds = Map.groupBy(recorded, ({ pipeline }) => pipeline.label);
  const empty = await time(device, []);
  const rows = [];
  for (const [label, dispatches] of kinds) {
    const each = (await time(device, dispatches) - empty) / dispatches.length / repeats;
    rows.push({ label, count: dispatches.length, each, workgroups: dispatches[0].workgroups.join("×") });
  }
  const sum = rows.reduce((total, { count, each }) => total + count * each, 0);
  console.log(
    `\nbatch ${batchSize}: ${recorded.length} dispatches; the step ${(1e6 * median(seconds)).toFixed(0)} µs, ` +
      `the sum of its kernels ${(1e6 * sum).toFixed(0)} µs, submitting and reading alone ${
        (1e6 * empty).toFixed(0)
      } µs`,
  );
  console.log(table([
    ["kernel", "workgroups", "count", "µs each", "µs all"],
    ...rows.map(({ label, workgroups, count, each }) => [
      ...[label, workgroups, `${count}`, (1e6 * each).toFixed(1), (1e6 * each * count).toFixed(0)],
    ]),
  ]));
}

/** The dispatches of one step. */
async function record(work: () => Promise<unknown>): Promise<Dispatch[]> {
  const dispatches: Dispatch[] = [], prototype = GPUComputePassEncoder.prototype;
  const { setPipeline, setBindGroup, dispatchWorkgroups } = prototype;
  let pipeline: GPUComputePipeline, bindGroup: GPUBindGroup;
  prototype.setPipeline = function (next) {
    pipeline = next;
    setPipeline.call(this, next);
  };
  prototype.setBindGroup = function (this: GPUComputePassEncoder, index: number, next: GPUBindGroup) {
    bindGroup = next;
    Reflect.apply(setBindGroup, this, [index, next]);
  } as typeof setBindGroup;
  prototype.dispatchWorkgroups = function (...workgroups: [number, number?, number?]) {
    dispatches.push({ pipeline, bindGroup, workgroups });
    dispatchWorkgroups.apply(this, workgroups);
  };
  try {
    await work();
  } finally {
    Object.assign(prototype, { setPipeline, setBindGroup, dispatchWorkgroups });
  }
  return dispatches;
}

/** Seconds of `repeats` times all of these dispatches, in one submission. */
async function time(device: GPUDevice, dispatches: readonly Dispatch[]): Promise<number> {
  const staging = device.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const source = device.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_SRC });
  const seconds = [];
  for (let i = 0; i < 3; i++) {
    const encoder = device.createCommandEncoder(), pass = encoder.beginComputePass();
    for (let repeat = 0; repeat < repeats; repeat++) {
      for (const { pipeline, bindGroup, workgroups } of dispatches) {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, bindGroup);
        pass.dispatchWorkgroups(...workgroups);
      }
    }
    pass.end();
    encoder.copyBufferToBuffer(source, 0, staging, 0, 16);
    const start = performance.now();
    device.queue.submit([encoder.finish()]);
    const mapped = staging.mapAsync(GPUMapMode.READ); // waits here under Deno; its promise takes 10 ms more
    seconds.push((performance.now() - start) / 1000);
    await mapped;
    staging.unmap();
  }
  return median(seconds);
}
