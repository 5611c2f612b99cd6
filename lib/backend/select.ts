/** Where a model runs: libtensorflow, else a GPU, else WebAssembly, else JavaScript. Nothing above this file knows which. */

import * as tf from "@tensorflow/tfjs";
import type { Parallelism } from "../engine/kv_cache.ts";
import { type Dtype, DTYPES, type Ops, plainOps } from "./ops.ts";
import type { Roofs } from "../bench/roofline.ts";
import { openTensorflow, type TensorflowBackend } from "../tensorflow/tfjs/backend.ts";
import { tensorflowOnGpu } from "../tensorflow/gpu.ts";
import { KERNELS, workingKernels } from "../tensorflow/probe.ts";
import { tensorflowOps } from "../tensorflow/ops.ts";
import type { OperationTime } from "../tensorflow/capi/trace.ts";
import { WebgpuBackend } from "../webgpu/backend.ts";

/** The backends there are, best first. */
export const BACKENDS = ["tensorflow", "webgpu", "wasm", "cpu"] as const;

/** The name of a backend. */
export type BackendName = typeof BACKENDS[number];

/** A captured step: one call for all of its operations. */
export interface CapturedStep {
  /** Runs it on inputs in the order of the capture, as one of `lanes` such calls with `threads` threads each. */
  run(inputs: readonly tf.Tensor[], parallelism: Parallelism): Promise<tf.Tensor[]>;
  /** Frees it. */
  dispose(): void;
}

/** A place where models run. */
export interface Backend {
  /** Its name in tfjs. */
  readonly name: BackendName;
  /** For people: library, version, device, threads. */
  readonly description: string;
  /** Threads that a step uses. */
  readonly threads: number;
  /** In how many groups of heads and hidden units a model is best divided, to be computed side by side. */
  readonly groups: number;
  /** The operations that models are made of. */
  readonly ops: Ops;
  /** Element types that the weights of linear layers can have. */
  readonly dtypes: readonly Dtype[];
  /** A float32 tensor whose values `fill` writes into the backend's own memory, where it can. */
  createTensor(shape: number[], fill: (values: Float32Array) => Promise<void> | void): Promise<tf.Tensor>;
  /** Keeps what `build` does as one function of its inputs; missing where the backend cannot. */
  capture?(
    inputs: readonly tf.Tensor[],
    build: (standIns: tf.Tensor[]) => tf.Tensor[],
    options: CaptureOptions,
  ): CapturedStep;
  /** Captures, runs that once and says when each operation ran; missing where the backend cannot. */
  trace?(
    inputs: readonly tf.Tensor[],
    build: (standIns: tf.Tensor[]) => tf.Tensor[],
    parallelism: Parallelism,
  ): Promise<OperationTime[]>;
  /** Steps of so many tokens want kernels of their own: those of different classes are captured apart. */
  sizeClass?(tokens: number): string;
  /** Measures what the device could do at most, where tfjs's operations would not show it. */
  measureRoofs?(): Promise<Roofs>;
  /** A step takes no longer for slots of the cache that are empty, so a cache may be made as large as it will become. */
  readonly emptySlotsAreFree?: boolean;
  /** True once it has lost its device: what runs on it throws, and {@link useBackend} starts it anew. */
  readonly failed?: boolean;
}

/** What a captured step is for. */
export interface CaptureOptions {
  /** It will run often: memory for faster kernels is well spent. */
  repeated: boolean;
}

/** How to run. */
export interface BackendOptions {
  /** Threads for TensorFlow. Default: all cores. */
  threads?: number;
  /** Is told, in one line, what is being set up, or why a slower backend was chosen. Default: stderr. */
  log?: (line: string) => void;
  /** Is told how far an installation of libtensorflow is, in bytes. */
  onProgress?: (done: number, total: number) => void;
}

/**
 * Makes a backend tfjs's current one and returns it. `auto` takes the first of {@link BACKENDS} that works here and says
 * why if it is not the first. libtensorflow is installed on the way if it is missing, after saying how large it is.
 */
export async function useBackend(name: BackendName | "auto" = "auto", options: BackendOptions = {}): Promise<Backend> {
  const { log = console.error } = options;
  if (name !== "auto" && !BACKENDS.includes(name)) {
    throw new RangeError(`Cannot use backend "${name}": the backends are auto, ${BACKENDS.join(", ")}.`);
  }
  if (name !== "auto") return await start(name, options, { allowSoftware: true });
  for (const candidate of BACKENDS) {
    try {
      const backend = await start(candidate, options, { allowSoftware: false });
      if (candidate !== BACKENDS[0]) log(`Running on ${backend.name}: ${backend.description}.`);
      return backend;
    } catch (error) {
      if (error instanceof RangeError) throw error; // what the user asked for is wrong, not the backend
      log(`The ${candidate} backend does not work here (${(error as Error).message}). Trying the next one.`);
    }
  }
  throw new Error("No backend works here.");
}

/** tfjs registers a backend once a process, so each is started once. */
const started = new Map<BackendName, Backend>();

/** Whether a GPU may be a program on the processor: only who asks for it gets that. */
interface Allowance {
  allowSoftware: boolean;
}

async function start(name: BackendName, options: BackendOptions, allowance: Allowance): Promise<Backend> {
  let backend = started.get(name);
  if (!backend || backend.failed) {
    tf.env().set("PROD", true); // tfjs otherwise checks shapes of everything, and prints advice
    if (name === "tensorflow") backend = await tensorflow(options);
    else if (name === "webgpu") backend = await webgpu(allowance);
    else backend = await plain(name);
    started.set(name, backend);
  } else if (options.threads && options.threads !== backend.threads) {
    throw new RangeError(
      `Cannot change to ${options.threads} threads: ${name} runs on ${backend.threads} until the process ends.`,
    );
  }
  await tf.setBackend(name);
  return backend;
}

async function tensorflow(options: BackendOptions): Promise<Backend> {
  const { threads = navigator.hardwareConcurrency } = options;
  const backend = await openTensorflow({ ...options, threads });
  return backend.onGpu ? await tensorflowOnGpu(backend) : await tensorflowOnCpu(backend, threads);
}

async function tensorflowOnCpu(backend: TensorflowBackend, threads: number): Promise<Backend> {
  const kernels = await workingKernels(backend), missing = KERNELS.filter((kernel) => !kernels.has(kernel));
  return {
    name: "tensorflow",
    description: `libtensorflow ${backend.binding.TF_Version} on the CPU, ${threads} threads` +
      (missing.length ? `, without the kernels ${missing.join(" and ")}` : ""),
    threads,
    groups: backend.sideBySide,
    ops: tensorflowOps(backend, kernels),
    dtypes: DTYPES.filter((dtype) => dtype === "float32" || kernels.has(dtype)),
    createTensor: (shape, fill) => backend.createTensor(shape, fill),
    capture(inputs, build, { repeated }) {
      const captured = backend.capture(inputs, build, { packs: repeated });
      return {
        run: (inputs, parallelism) => captured.run(inputs, { threads: spread(parallelism) }),
        dispose: () => captured.dispose(),
      };
    },
    trace: (inputs, build, parallelism) => backend.trace(inputs, build, spread(parallelism)),
    // oneDNN lays out weights in one of two ways, and in the wrong one a product takes twice as long.
    sizeClass: (tokens) => tokens <= 6 ? "few" : tokens <= 40 ? "some" : "many",
  };
}

/** Operations stay on one thread each; lanes, and the shards of a lane's products, run side by side. */
function spread({ lanes, threads }: Parallelism) {
  return { intraOp: 1, interOp: lanes * threads };
}

async function webgpu(allowance: Allowance): Promise<Backend> {
  const backend = await WebgpuBackend.start(allowance);
  return {
    name: "webgpu",
    description: backend.description,
    threads: 1,
    groups: 1,
    ops: backend.ops,
    dtypes: ["float32", "bfloat16"],
    createTensor: (shape, fill) => backend.createTensor(shape, fill),
    capture: (inputs, build) => backend.capture(inputs, build),
    measureRoofs: () => backend.measureRoofs(),
    emptySlotsAreFree: true,
    get failed() {
      return backend.gpu.failed;
    },
  };
}

async function plain(name: "wasm" | "cpu"): Promise<Backend> {
  if (name === "wasm") {
    const { setWasmPaths } = await import("@tensorflow/tfjs-backend-wasm");
    setWasmPaths(import.meta.resolve("@tensorflow/tfjs-backend-wasm").replace(/[^/]*$/, ""));
  }
  return {
    name,
    description: `tfjs ${tf.version_core} on ${name === "wasm" ? "WebAssembly, 1 thread" : "JavaScript, 1 thread"}`,
    threads: 1,
    groups: 1,
    ops: plainOps,
    dtypes: ["float32"],
    async createTensor(shape, fill) {
      const values = new Float32Array(tf.util.sizeFromShape(shape));
      await fill(values);
      return tf.tensor(values, shape);
    },
  };
}
