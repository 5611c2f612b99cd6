/** Where a model runs: libtensorflow, else a GPU, else WebAssembly, else JavaScript. Nothing above this file knows which. */

import * as tf from "@tensorflow/tfjs";
import { plainCachePolicy, plainOps } from "./plain.ts";
import { type Backend, type BackendName, BACKENDS } from "./types.ts";

/** How to run. */
export interface BackendOptions {
  /** Threads for TensorFlow. Default: all cores. */
  threads?: number;
  /** Called with one line about what is being set up, or why a slower backend was chosen. Default: stderr. */
  log?: (line: string) => void;
  /** Called with how far an installation of libtensorflow is, in bytes. */
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
    backend = await open(name, options, allowance);
    started.set(name, backend);
  } else if (options.threads && options.threads !== backend.threads) {
    throw new RangeError(
      `Cannot change to ${options.threads} threads: ${name} runs on ${backend.threads} until the process ends.`,
    );
  }
  await tf.setBackend(name);
  return backend;
}

/** A backend's code is loaded when it is chosen. */
async function open(name: BackendName, options: BackendOptions, allowance: Allowance): Promise<Backend> {
  if (name === "tensorflow") return await (await import("../tensorflow/start.ts")).startTensorflow(options);
  if (name === "webgpu") return await (await import("../webgpu/backend.ts")).startWebgpu(allowance);
  return await startPlain(name);
}

/** tfjs on WebAssembly or in JavaScript. */
async function startPlain(name: "wasm" | "cpu"): Promise<Backend> {
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
    cachePolicy: plainCachePolicy,
    dtypes: ["float32"],
    async createTensor(shape, fill) {
      const values = new Float32Array(tf.util.sizeFromShape(shape));
      await fill(values);
      return tf.tensor(values, shape);
    },
  };
}
