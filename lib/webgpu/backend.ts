/** The WebGPU backend: tfjs's operations one by one, and captured steps with kernels of our own. */

import type * as tf from "@tensorflow/tfjs";
import type { Ops } from "../backend/ops.ts";
import { type Backend, type Roofs, RUN_AHEAD } from "../backend/types.ts";
import { multipleOf16 } from "../backend/plain.ts";
import { copyRows } from "./cache_rows.ts";
import { onBackend } from "../backend/current.ts";
import { Recorder } from "../backend/expression.ts";
import { availableMemory } from "../util/host_memory.ts";
import { CapturedPlan } from "./captured.ts";
import { type Gpu, openGpu } from "./device.ts";
import { webgpuOps } from "./ops.ts";
import { Packer, type Weight } from "./pack.ts";
import { makePlan } from "./plan.ts";
import { DENO_VERSION } from "../util/runtime.ts";
import { ReadBack, READS_EARLY } from "./read_back.ts";
import { measureGpuRoofs } from "./roofs.ts";
import { Scratch } from "./scratch.ts";
import { TfjsOnGpu } from "./tfjs.ts";
import { Lifetime } from "../util/lifetime.ts";

/** How models run on a GPU through WebGPU. */
export async function startWebgpu(): Promise<Backend> {
  const backend = await WebgpuBackend.start();
  return {
    name: "webgpu",
    description: backend.description,
    threads: 1,
    lanes: 1,
    groups: 1,
    ops: backend.ops,
    dtypes: ["float32", "bfloat16"],
    // WebGPU does not say what a GPU has left. A program on the processor has the machine's memory.
    availableMemory: () => backend.gpu.software ? availableMemory() : undefined,
    createTensor: (shape, fill) => backend.createTensor(shape, fill),
    capture: (inputs, build) => backend.capture(inputs, build),
    measureRoofs: () => backend.measureRoofs(),
    runsAhead: RUN_AHEAD.gpu,
    // A token attends to as many slots as it has tokens before it: room costs memory and nothing else.
    cachePolicy: { bucketCost: 2 ** 14, emptySlotsAreFree: true, slotsFor: multipleOf16 },
    get failed() {
      return backend.gpu.failed;
    },
  };
}

/** A GPU with what models need. */
export class WebgpuBackend {
  readonly gpu: Gpu;
  readonly ops: Ops;
  readonly #tfjs: TfjsOnGpu;
  readonly #recorder = new Recorder<Weight>();
  readonly #scratch: Scratch;
  readonly #readBack: ReadBack;
  /** Captured steps in use. */
  #captures = 0;
  /** Ends when the run that is under way does: they take turns, as they share their memory. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(gpu: Gpu) {
    this.gpu = gpu;
    this.#tfjs = new TfjsOnGpu(gpu);
    this.#scratch = new Scratch(gpu.device);
    this.#readBack = new ReadBack(gpu.device);
    this.ops = webgpuOps(this.#recorder, new Packer(this.#tfjs), (...rows) => copyRows(this.#tfjs, ...rows));
  }

  /** For people. */
  get description(): string {
    const { name, software } = this.gpu;
    return `${name} through WebGPU` + (software ? ", a program on the processor" : "") +
      (READS_EARLY || !DENO_VERSION ? "" : `; Deno ${DENO_VERSION} adds 10 ms to each step`);
  }

  /** Opens the GPU and registers tfjs's backend `webgpu`. Throws what {@link openGpu} throws. */
  static async start(): Promise<WebgpuBackend> {
    return new WebgpuBackend(await openGpu());
  }

  /** A float32 tensor whose values `fill` writes. Throws a RangeError if the GPU cannot hold it. */
  createTensor(shape: number[], fill: (values: Float32Array) => Promise<void> | void): Promise<tf.Tensor> {
    return this.#tfjs.createTensor(shape, fill);
  }

  /** What the GPU could do at most. */
  measureRoofs(): Promise<Roofs> {
    return measureGpuRoofs(this.#tfjs, this.#readBack);
  }

  /** Records what `build` does with stand-ins for `inputs`. Other tensors that it uses must outlive the result. */
  capture(inputs: readonly tf.Tensor[], build: (standIns: tf.Tensor[]) => tf.Tensor[]) {
    const recorded = onBackend({ name: "webgpu" }, () => this.#recorder.record(inputs, build));
    const plan = makePlan(recorded, this.gpu.device.limits);
    const shared = { tfjs: this.#tfjs, scratch: this.#scratch, readBack: this.#readBack };
    this.#captures++;
    const captured = new CapturedPlan(plan, shared, () => {
      if (--this.#captures > 0) return;
      this.#scratch.dispose();
      this.#readBack.dispose();
    });
    const lifetime = new Lifetime("this captured function", () => captured.dispose());
    const inTurn = async <T>(work: () => Promise<T>): Promise<T> => {
      using _ = lifetime.use();
      const done = this.#turn.then(work);
      this.#turn = done.catch(() => {});
      return await done;
    };
    return {
      run: (inputs: readonly tf.Tensor[]) => inTurn(() => captured.run(inputs)),
      chain: (inputs: readonly tf.Tensor[], moving: readonly number[], count: number) =>
        inTurn(() => captured.chain(inputs, moving, count)),
      dispose: () => lifetime.end(),
    };
  }
}
