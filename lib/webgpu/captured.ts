/**
 * A captured step: the kernels of a plan with everything that a run needs, kept ready. A run writes one small buffer, records
 * its dispatches into one command buffer, submits it once and reads back the results. A chain of runs writes and reads once.
 */

import * as tf from "@tensorflow/tfjs";
import { onBackend } from "../backend/current.ts";
import { feedKernel } from "./kernels/feed.ts";
import { STEP_HEADER } from "./kernels/wgsl.ts";
import { type Binding, BUCKETS, type Call, type KernelPlan, type Sizes } from "./plan.ts";
import type { ReadBack } from "./read_back.ts";
import type { Scratch } from "./scratch.ts";
import type { TfjsOnGpu } from "./tfjs.ts";

/** What captured steps of one GPU share. */
export interface Shared {
  tfjs: TfjsOnGpu;
  scratch: Scratch;
  readBack: ReadBack;
}

/** What a call runs, for certain sizes. */
interface Program {
  pipeline: GPUComputePipeline;
  workgroups: readonly [x: number, y: number, z: number];
}

/** One dispatch, ready. */
interface Dispatch extends Program {
  bindGroup: GPUBindGroup;
}

/** All dispatches of a step, for certain sizes and buffers. */
interface Ready {
  sizes: Sizes;
  /** The buffers of the inputs that kernels are bound to, by input. */
  inputs: Map<number, GPUBuffer>;
  /** Of the scratch memory. */
  version: number;
  dispatches: Dispatch[];
}

/** Bind groups that are kept for caches that may come again. */
const MAX_BIND_GROUPS = 1024;
/** Sizes whose programs are kept: to write their source takes longer than a step. */
const MAX_SIZES = 64;

/** A step that was captured on WebGPU. */
export class CapturedPlan {
  readonly #bound: readonly number[];
  #ready?: Ready;
  #bindGroups = new Map<string, GPUBindGroup>();
  /** By sizes, the program of each call that has one. */
  readonly #programs = new Map<string, (Program | null)[]>();
  readonly #pipelines: GPUComputePipeline[] = [];

  /** `onDispose` is called once, when it is not needed any more. */
  constructor(
    private readonly plan: KernelPlan,
    private readonly shared: Shared,
    private readonly onDispose: () => void,
  ) {
    const bindings = plan.calls.flatMap((call) => call.bindings);
    this.#bound = [...new Set(bindings.flatMap((binding) => "input" in binding ? [binding.input] : []))];
  }

  /** Runs it on inputs in the order of the capture. Choices come back to the host, other results stay on the GPU. */
  async run(inputs: readonly tf.Tensor[]): Promise<tf.Tensor[]> {
    const { plan, shared: { tfjs, scratch, readBack } } = this, { gpu } = tfjs;
    const sizes = await this.#begin(inputs), encoder = gpu.device.createCommandEncoder();
    record(encoder, this.#ready!.dispatches);
    const results = plan.outputs.map((output) => {
      const shape = output.shape(sizes);
      return { ...output, shape, byteLength: 4 * tf.util.sizeFromShape(shape), byteOffset: output.byteOffset(sizes) };
    });
    const webgpu = { name: "webgpu" }; // whichever backend is current, after a wait
    const stay = results.filter(({ isChoice }) => !isChoice).map(({ scratch: i, byteLength, shape }) => {
      const tensor = onBackend(webgpu, () => tfjs.empty(shape, "float32"));
      encoder.copyBufferToBuffer(scratch.buffer(i), 0, tfjs.bufferOf(tensor), 0, byteLength);
      return tensor;
    });
    const choices = results.filter(({ isChoice }) => isChoice);
    const pieces = choices.map(({ scratch: i, ...range }) => ({ ...range, buffer: scratch.buffer(i) }));
    const bytes = await readBack.submitAndRead(encoder, pieces).catch((error) => gpu.explain(error));
    const read = onBackend(
      webgpu,
      () =>
        choices.map(({ shape, dtype }, i) =>
          tf.tensor(dtype === "int32" ? new Int32Array(bytes[i]) : new Float32Array(bytes[i]), shape, dtype)
        ),
    );
    return results.map(({ isChoice }) => (isChoice ? read : stay).shift()!);
  }

  /**
   * Runs a step of ids `count` times, each fed what the one before chose, with inputs `moving` plus 1. While the GPU runs one,
   * the next is recorded.
   */
  async chain(inputs: readonly tf.Tensor[], moving: readonly number[], count: number): Promise<Int32Array[]> {
    const { plan, shared: { tfjs: { gpu }, scratch, readBack } } = this, { device } = gpu;
    const { tokens } = await this.#begin(inputs), [{ scratch: chosen }] = plan.outputs;
    const feed = this.#feed(moving, tokens, scratch.buffer(chosen)), stepBytes = tokens * Int32Array.BYTES_PER_ELEMENT;
    const usage = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const all = device.createBuffer({ size: count * stepBytes, usage });
    const step = (i: number) => {
      const encoder = device.createCommandEncoder(), { dispatches } = this.#ready!;
      record(encoder, i + 1 < count ? [...dispatches, feed] : dispatches);
      encoder.copyBufferToBuffer(scratch.buffer(chosen), 0, all, i * stepBytes, stepBytes);
      return encoder;
    };
    try {
      for (let i = 0; i + 1 < count; i++) device.queue.submit([step(i).finish()]);
      const piece = { buffer: all, byteOffset: 0, byteLength: all.size };
      const [bytes] = await readBack.submitAndRead(step(count - 1), [piece]).catch((error) => gpu.explain(error));
      return Array.from({ length: count }, (_, i) => new Int32Array(bytes, i * stepBytes, tokens));
    } finally {
      all.destroy();
    }
  }

  /** Frees what it keeps. */
  dispose(): void {
    this.#ready = undefined;
    this.#bindGroups.clear();
    this.#programs.clear();
    this.onDispose();
  }

  /** Makes everything ready, and sends what changes from step to step. */
  async #begin(inputs: readonly tf.Tensor[]): Promise<Sizes> {
    const { plan, shared: { tfjs, scratch } } = this, { gpu } = tfjs;
    gpu.check();
    await tfjs.checkMemory();
    const sizes = sizesOf(plan, inputs), integers = stepIntegers(plan, inputs, sizes);
    const buffers = new Map(this.#bound.map((input) => [input, tfjs.bufferOf(inputs[input])]));
    if (!this.#isReady(sizes, buffers, integers.byteLength)) await this.#prepare(sizes, buffers, integers.byteLength);
    tfjs.flush();
    gpu.device.queue.writeBuffer(scratch.step, 0, integers);
    return sizes;
  }

  /** What feeds the tokens in `chosen` to the next step. */
  #feed(moving: readonly number[], rows: number, chosen: GPUBuffer): Dispatch {
    const { plan, shared: { tfjs, scratch } } = this, arrayOf = (input: number) => 1 + plan.integers.indexOf(input);
    const positions = moving.map((input) => {
      const i = plan.buckets.findIndex((bucket) => bucket.positions === input);
      return { array: arrayOf(input), bucket: i < 0 ? null : { array: BUCKETS, first: 3 * i } };
    });
    const { code, name, workgroups } = feedKernel({ rows, tokens: arrayOf(plan.tokens), positions });
    const pipeline = tfjs.pipeline(code, name), layout = pipeline.getBindGroupLayout(0);
    const entries = [scratch.step, chosen].map((buffer, binding) => ({ binding, resource: { buffer } }));
    return { pipeline, workgroups, bindGroup: tfjs.gpu.device.createBindGroup({ layout, entries }) };
  }

  #isReady(sizes: Sizes, buffers: Map<number, GPUBuffer>, stepBytes: number): boolean {
    const ready = this.#ready, { scratch } = this.shared;
    return ready !== undefined && ready.version === scratch.version && scratch.step.size >= stepBytes &&
      ready.sizes.tokens === sizes.tokens && ready.sizes.wanted === sizes.wanted &&
      ready.sizes.buckets.every((tokens, i) => tokens === sizes.buckets[i]) &&
      this.#bound.every((input) => ready.inputs.get(input) === buffers.get(input));
  }

  /** Makes memory, pipelines and bind groups for these sizes and buffers, as far as they are not there already. */
  async #prepare(sizes: Sizes, inputs: Map<number, GPUBuffer>, stepBytes: number): Promise<void> {
    const { plan, shared: { tfjs: { gpu }, scratch } } = this, { version } = scratch;
    this.#ready = undefined;
    gpu.device.pushErrorScope("out-of-memory");
    gpu.device.pushErrorScope("validation");
    let thrown: unknown;
    try {
      scratch.reserve(plan.scratch.map((bytes) => bytes(sizes)), stepBytes);
      if (scratch.version !== version || this.#bindGroups.size > MAX_BIND_GROUPS) this.#bindGroups.clear();
      const programs = this.#programsFor(sizes);
      const dispatches = plan.calls.flatMap((call, i) => {
        const program = programs[i];
        return program ? [this.#dispatch(call, program, sizes, inputs)] : [];
      });
      this.#ready = { sizes, inputs, version: scratch.version, dispatches };
    } catch (error) {
      thrown = error;
    }
    const [invalid, memory] = [await gpu.device.popErrorScope(), await gpu.device.popErrorScope()];
    if (thrown || invalid || memory) this.#ready = undefined;
    if (thrown) throw thrown;
    gpu.check();
    if (memory) {
      throw new RangeError(
        `The GPU (${gpu.name}) has no memory left for a step of ${sizes.tokens} tokens. Use fewer rows or tokens.`,
      );
    }
    if (invalid) throw new Error(`The GPU (${gpu.name}) refused a step: ${invalid.message}`);
  }

  #programsFor(sizes: Sizes): (Program | null)[] {
    const key = [sizes.tokens, sizes.wanted, ...sizes.buckets].join();
    let programs = this.#programs.get(key);
    if (!programs) {
      programs = this.plan.calls.map(({ kernel }) => {
        const made = kernel(sizes);
        if (!made) return null;
        const { name, code, workgroups } = made, pipeline = this.shared.tfjs.pipeline(code, name);
        if (!this.#pipelines.includes(pipeline)) this.#pipelines.push(pipeline);
        return { pipeline, workgroups };
      });
      if (this.#programs.size >= MAX_SIZES) this.#programs.clear();
      this.#programs.set(key, programs);
    }
    return programs;
  }

  #dispatch({ bindings }: Call, program: Program, sizes: Sizes, inputs: Map<number, GPUBuffer>): Dispatch {
    const { tfjs, scratch } = this.shared, { device, name } = tfjs.gpu, { pipeline } = program;
    const resources = [
      { buffer: scratch.step },
      ...bindings.map((binding) => this.#resource(binding, inputs)),
    ];
    for (const { buffer, size = buffer.size } of resources) {
      if (size <= device.limits.maxStorageBufferBindingSize) continue;
      throw new RangeError(
        `Cannot run a step of ${sizes.tokens} tokens on the GPU (${name}): it needs ${size} bytes in one piece, and ` +
          `${device.limits.maxStorageBufferBindingSize} is the most. Use fewer rows or tokens.`,
      );
    }
    const places = resources.map(({ buffer, offset = 0 }) => `${tfjs.numberOf(buffer)}+${offset}`);
    const key = [this.#pipelines.indexOf(pipeline), ...places].join(" ");
    let bindGroup = this.#bindGroups.get(key);
    if (!bindGroup) {
      const entries = resources.map((resource, binding) => ({ binding, resource }));
      bindGroup = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
      this.#bindGroups.set(key, bindGroup);
    }
    return { ...program, bindGroup };
  }

  #resource(binding: Binding, inputs: Map<number, GPUBuffer>): GPUBufferBinding {
    if ("input" in binding) return { buffer: inputs.get(binding.input)! };
    if ("scratch" in binding) return { buffer: this.shared.scratch.buffer(binding.scratch) };
    const buffer = this.shared.tfjs.bufferOf(binding.weight), { byteOffset, byteLength } = binding.part ?? {};
    return binding.part ? { buffer, offset: byteOffset, size: byteLength } : { buffer };
  }
}

/** Records dispatches. */
function record(encoder: GPUCommandEncoder, dispatches: readonly Dispatch[]): void {
  const pass = encoder.beginComputePass();
  for (const { pipeline, bindGroup, workgroups: [x, y, z] } of dispatches) {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(x, y, z);
  }
  pass.end();
}

function sizesOf(plan: KernelPlan, inputs: readonly tf.Tensor[]): Sizes {
  const [tokens] = inputs[plan.tokens].shape;
  return {
    tokens,
    wanted: plan.wanted === null ? tokens : inputs[plan.wanted].shape[0],
    buckets: plan.buckets.map(({ positions }) => inputs[positions].shape[0]),
  };
}

/** What changes from step to step, as the kernels read it: see STEP in kernels/wgsl.ts. */
function stepIntegers(plan: KernelPlan, inputs: readonly tf.Tensor[], sizes: Sizes): Int32Array<ArrayBuffer> {
  let first = 0;
  const buckets = plan.buckets.flatMap(({ keys }, i) => {
    first += sizes.buckets[i];
    return [first - sizes.buckets[i], sizes.buckets[i], inputs[keys].shape[2]!];
  });
  const arrays = [buckets, ...plan.integers.map((input) => inputs[input].dataSync())]; // of numbers that are still here
  if (arrays.length > STEP_HEADER - 2) throw new Error(`Cannot run a step with ${arrays.length} arrays of integers.`);
  const integers = new Int32Array(arrays.reduce((length, array) => length + array.length, STEP_HEADER));
  integers.set([sizes.tokens, sizes.wanted]);
  let end = STEP_HEADER;
  for (const [i, array] of arrays.entries()) {
    integers[2 + i] = end;
    integers.set(array, end);
    end += array.length;
  }
  return integers;
}
