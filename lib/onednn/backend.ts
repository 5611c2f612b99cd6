/** The oneDNN backend: a step is a list of calls of the library, and all else is TensorFlow's. */

import * as tf from "@tensorflow/tfjs";
import { onBackend } from "../backend/current.ts";
import { Recorder } from "../backend/expression.ts";
import { plainCachePolicy } from "../backend/plain.ts";
import { type Backend, RUN_AHEAD } from "../backend/types.ts";
import { tensorflowSamplingOps } from "../tensorflow/sampling.ts";
import { startTensorflow } from "../tensorflow/start.ts";
import { openTensorflow, TENSORFLOW, type TensorflowOptions } from "../tensorflow/tfjs/backend.ts";
import { availableMemory } from "../util/host_memory.ts";
import { Lifetime } from "../util/lifetime.ts";
import { nextTurn } from "../util/turn.ts";
import { CapturedStep, type Host } from "./captured.ts";
import { ensureOnednn } from "./install.ts";
import { Onednn } from "./library.ts";
import { onednnOps } from "./ops.ts";
import type { Shared } from "./plan.ts";
import { workingDtypes } from "./probe.ts";
import type { Expression } from "./program.ts";
import { measureOnednnRoofs } from "./roofs.ts";
import { ThreadCount } from "./thread_count.ts";
import type { Weight } from "./weight.ts";

const ONEDNN = { name: "onednn" } as const;

/** How models run on oneDNN. tfjs's own operations, as for sampling, run on libtensorflow. */
export async function startOnednn(options: TensorflowOptions): Promise<Backend> {
  const tensorflow = await openTensorflow(options), { threads: { intraOp: threads } } = tensorflow;
  if (tensorflow.onGpu) throw new Error("libtensorflow runs on a GPU here, and oneDNN needs it on the processor");
  const library = new Onednn(await ensureOnednn(options), threads);
  if (!(ONEDNN.name in tf.engine().registry)) {
    tf.copyRegisteredKernels(TENSORFLOW.name, ONEDNN.name);
    tf.registerBackend(ONEDNN.name, () => tf.findBackend(TENSORFLOW.name));
    tf.findBackend(ONEDNN.name);
  }
  /** Where TensorFlow keeps a tensor's numbers. */
  const valuesOf = (tensor: tf.Tensor) => {
    const [{ buffer, byteOffset, byteLength }] = tensorflow.partsOf(tensor);
    return new Float32Array(buffer, byteOffset, byteLength / Float32Array.BYTES_PER_ELEMENT);
  };
  const recorder = new Recorder<Weight>(), placeOf = (expression: Expression) => recorder.placeOf(expression);
  const count = new ThreadCount(threads);
  let captures = 0; // in use
  const shared: Shared = { library, primitives: new Map(), scratch: [], norms: new WeakMap(), valuesOf, placeOf };
  const host: Host = {
    shared,
    cachesIn: (tensor) => tensorflow.partsOf(tensor, tensor.shape[0]),
    createTensor: (shape, values) => tensorflow.createTensor(shape, (place) => place.set(values)),
    vector: (values) =>
      onBackend(ONEDNN, () => tf.tensor1d(values, values instanceof Int32Array ? "int32" : "float32")),
  };
  const captureStep = (inputs: readonly tf.Tensor[], build: (standIns: tf.Tensor[]) => tf.Tensor[]) =>
    new CapturedStep(host, onBackend(ONEDNN, () => recorder.record(inputs, build)));
  const ops = {
    ...onednnOps({ library, recorder, tensorflow, valuesOf }),
    sampling: tensorflowSamplingOps(tensorflow),
  };
  return {
    name: ONEDNN.name,
    description: `oneDNN ${library.version} on the CPU, ${threads} threads`,
    threads,
    lanes: 1,
    groups: 1,
    ops,
    dtypes: workingDtypes(library),
    availableMemory,
    createTensor: (shape, fill) => tensorflow.createTensor(shape, fill),
    measureRoofs(dtype) {
      library.threads = threads; // whatever others left to the last step
      return measureOnednnRoofs(library, ONEDNN, dtype);
    },
    oneByOne: () => startTensorflow(options),
    cachePolicy: { ...plainCachePolicy, roomFor: undefined },
    runsAhead: RUN_AHEAD.processor,
    async trace(inputs, build, parallelism) {
      await nextTurn();
      library.threads = parallelism.threads;
      return captureStep(inputs, build).trace(inputs);
    },
    capture(inputs, build) {
      const step = captureStep(inputs, build);
      captures++;
      const lifetime = new Lifetime("this captured function", () => {
        step.dispose();
        if (--captures > 0) return;
        shared.scratch.length = 0;
        shared.primitives.clear();
      });
      /** Lets others have their turn first: steps do not wait for anything. */
      const inTurn = async <T>(work: () => Promise<T> | T): Promise<T> => {
        using _ = lifetime.use();
        await nextTurn();
        library.threads = count.begin();
        try {
          return await work();
        } finally {
          count.end();
        }
      };
      return {
        run: (inputs) => inTurn(() => step.run(inputs)),
        chain: (inputs, moving, count) => inTurn(() => step.chain(inputs, moving, count)),
        dispose: () => lifetime.end(),
      };
    },
  };
}
