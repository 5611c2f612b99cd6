/** Where a model runs: libtensorflow, else a GPU, else WebAssembly, else JavaScript. Nothing above this file knows which. */

import * as tf from "@tensorflow/tfjs";
import { plainCachePolicy, plainOps } from "./plain.ts";
import { availableMemory } from "../util/host_memory.ts";
import { singleFlight } from "../util/single_flight.ts";
import { onBackend } from "./current.ts";
import type { Dtype } from "./ops.ts";
import { checkThreads } from "./threads.ts";
import { type Backend, type BackendName, BACKENDS } from "./types.ts";

/** How to run. */
export interface BackendOptions {
  /** For `auto`: of what type a model's weights are going to be. Default `float32`. */
  dtype?: Dtype;
  /** Threads for TensorFlow, from 1 to the machine's cores. Default: all of them. */
  threads?: number;
  /** Called with one line about what is being set up, or why a slower backend was chosen. Default: stderr. */
  log?: (line: string) => void;
  /** Called with how far an installation of libtensorflow is, in bytes. */
  onProgress?: (done: number, total: number) => void;
}

/** The backends that `auto` tries. oneDNN stands on libtensorflow: it is for int8 weights, of which it multiplies few rows quicker. */
const ORDER = BACKENDS.filter((name) => name !== "onednn"), INT8_ORDER: readonly BackendName[] = ["onednn", ...ORDER];

/**
 * Makes a backend tfjs's current one and returns it. `auto` takes the first of {@link BACKENDS} that works here, onednn for int8
 * weights only and then before all others, and says why if it is not the first. Libraries are installed on the way if they are
 * missing, after saying how large they are.
 *
 * A backend is started once in a process: calls at the same time wait for the first one, and share its end. Throws a
 * RangeError for a name that there is not, more threads than cores, or other threads than libtensorflow runs on already.
 *
 * @example
 * ```ts
 * import { AutoModelForCausalLM, useBackend } from "../mod.ts";
 *
 * const backend = await useBackend("wasm");
 * using model = await AutoModelForCausalLM.fromPretrained("models/small", { backend });
 * console.log(backend.description); // tfjs 4.22.0 on WebAssembly, 1 thread
 * ```
 */
export async function useBackend(name: BackendName | "auto" = "auto", options: BackendOptions = {}): Promise<Backend> {
  const { log = console.error } = options;
  if (name !== "auto" && !BACKENDS.includes(name)) {
    throw new RangeError(`Cannot use backend "${name}": the backends are auto, ${BACKENDS.join(", ")}.`);
  }
  if (options.threads !== undefined) checkThreads(options.threads);
  if (name !== "auto") return await start(name, options);
  const candidates = options.dtype === "int8" ? INT8_ORDER : ORDER;
  for (const candidate of candidates) {
    try {
      if (candidate === "webgpu") await (await import("../webgpu/device.ts")).refuseSoftware(); // slower than WebAssembly
      const backend = await start(candidate, options);
      if (candidate === "onednn" && !backend.dtypes.includes("int8")) {
        throw new Error("not with int8 on this processor");
      }
      if (candidate !== candidates[0]) log(`Running on ${backend.name}: ${backend.description}.`);
      return backend;
    } catch (error) {
      if (error instanceof RangeError) throw error; // what the user asked for is wrong, not the backend
      log(`The ${candidate} backend does not work here (${(error as Error).message}). Trying the next one.`);
    }
  }
  throw new Error("No backend works here.");
}

async function start(name: BackendName, options: BackendOptions): Promise<Backend> {
  const backend = await startOnce(name, options);
  if ((name === "tensorflow" || name === "onednn") && options.threads) await refuseOtherThreads(options.threads);
  await tf.setBackend(name);
  return backend;
}

const started = new Map<BackendName, Backend>();

/** tfjs registers a backend once a process, so each is started once; again only after it has failed. */
const startOnce = singleFlight(async (name: BackendName, options: BackendOptions): Promise<Backend> => {
  let backend = started.get(name);
  if (!backend || backend.failed) {
    tf.env().set("PROD", true); // tfjs otherwise checks shapes of everything, and prints advice
    backend = await open(name, options);
    started.set(name, backend);
  }
  return backend;
}, (name) => name);

async function refuseOtherThreads(threads: number): Promise<void> {
  const { openTensorflow } = await import("../tensorflow/tfjs/backend.ts");
  const { intraOp } = (await openTensorflow()).threads;
  if (threads === intraOp) return;
  throw new RangeError(
    `Cannot change to ${threads} threads: tensorflow runs on ${intraOp} until the process ends.`,
  );
}

/** A backend's code is loaded when it is chosen. */
async function open(name: BackendName, options: BackendOptions): Promise<Backend> {
  if (name === "tensorflow") return await (await import("../tensorflow/start.ts")).startTensorflow(options);
  if (name === "onednn") return await (await import("../onednn/backend.ts")).startOnednn(options);
  if (name === "webgpu") return await (await import("../webgpu/backend.ts")).startWebgpu();
  return await startPlain(name);
}

/** tfjs on WebAssembly or in JavaScript. */
async function startPlain(name: "wasm" | "cpu"): Promise<Backend> {
  if (name === "wasm") {
    await import("./wasm.ts");
    await makeReady(name);
  }
  return {
    name,
    description: `tfjs ${tf.version_core} on ${name === "wasm" ? "WebAssembly, 1 thread" : "JavaScript, 1 thread"}`,
    threads: 1,
    lanes: 1,
    groups: 1,
    ops: plainOps,
    cachePolicy: plainCachePolicy,
    dtypes: ["float32"],
    availableMemory,
    async createTensor(shape, fill) {
      const values = new Float32Array(tf.util.sizeFromShape(shape));
      await fill(values);
      return onBackend({ name }, () => tf.tensor(values, shape));
    },
  };
}

/** While tfjs waits for a backend to be ready, none can be used. So it is given one that is. Throws if it cannot be. */
async function makeReady(name: BackendName): Promise<void> {
  if (name in tf.engine().registry) return;
  const backend = await Promise.resolve(tf.findBackendFactory(name)()).catch((cause) => {
    throw new Error(`tfjs's ${name} backend cannot be started`, { cause }); // what it says itself is about web servers
  });
  tf.removeBackend(name);
  tf.registerBackend(name, () => backend);
}
