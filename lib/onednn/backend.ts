/** The oneDNN backend: a step is a list of calls of the library, and all else is TensorFlow's. */

import * as tf from "@tensorflow/tfjs";
import { setImmediate } from "node:timers/promises";
import { onBackend } from "../backend/current.ts";
import { Recorder } from "../backend/expression.ts";
import { DTYPES } from "../backend/ops.ts";
import { plainCachePolicy } from "../backend/plain.ts";
import type { Backend } from "../backend/types.ts";
import { tensorflowSamplingOps } from "../tensorflow/sampling.ts";
import { openTensorflow, TENSORFLOW, type TensorflowOptions } from "../tensorflow/tfjs/backend.ts";
import { availableMemory } from "../util/host_memory.ts";
import { Lifetime } from "../util/lifetime.ts";
import { CacheRegister } from "./caches.ts";
import { CapturedStep, type Host } from "./captured.ts";
import { Onednn } from "./library.ts";
import { onednnOps } from "./ops.ts";
import type { Shared } from "./program.ts";
import type { Weight } from "./weight.ts";

const ONEDNN = { name: "onednn" } as const;

/** How models run on oneDNN. tfjs's own operations, as for sampling, run on libtensorflow. */
export async function startOnednn(options: TensorflowOptions): Promise<Backend> {
  const tensorflow = await openTensorflow(options), { threads: { intraOp: threads } } = tensorflow;
  const library = new Onednn(Deno.env.get("DNNL")!, threads);
  if (!(ONEDNN.name in tf.engine().registry)) {
    tf.copyRegisteredKernels(TENSORFLOW.name, ONEDNN.name);
    tf.registerBackend(ONEDNN.name, () => tf.findBackend(TENSORFLOW.name));
    tf.findBackend(ONEDNN.name);
  }
  const values = new WeakMap<object, Float32Array>();
  const valuesOf = (tensor: tf.Tensor) => {
    const known = values.get(tensor.dataId) ?? tensor.dataSync<"float32">() as Float32Array;
    values.set(tensor.dataId, known);
    return known;
  };
  const createTensor: Backend["createTensor"] = async (shape, fill) => {
    let own: Float32Array;
    const tensor = await tensorflow.createTensor(shape, (place) => fill(own = place));
    values.set(tensor.dataId, own!);
    return tensor;
  };
  const recorder = new Recorder<Weight>(), caches = new CacheRegister();
  const shared: Shared = { library, primitives: new Map(), scratch: [], norms: new WeakMap(), valuesOf };
  const host: Host = {
    shared,
    cacheOf: (tensor) => caches.of(tensor),
    createTensor: (shape, values) => tensorflow.createTensor(shape, (place) => place.set(values)),
    vector: (values) =>
      onBackend(ONEDNN, () => tf.tensor1d(values, values instanceof Int32Array ? "int32" : "float32")),
  };
  const ops = { ...onednnOps({ library, recorder, caches, valuesOf }), sampling: tensorflowSamplingOps(tensorflow) };
  return {
    name: ONEDNN.name,
    description: `oneDNN ${library.version} on the CPU, ${threads} threads`,
    threads: 1,
    groups: 1,
    ops,
    dtypes: DTYPES,
    availableMemory,
    createTensor,
    cachePolicy: { ...plainCachePolicy, roomFor: undefined },
    runsAhead: { certain: 16, uncertain: 4, milliseconds: 100 },
    capture(inputs, build) {
      const step = new CapturedStep(host, onBackend(ONEDNN, () => recorder.record(inputs, build)));
      const lifetime = new Lifetime("this captured function", () => step.dispose());
      /** Lets others have their turn first: steps do not wait for anything. */
      const inTurn = async <T>(work: () => Promise<T> | T): Promise<T> => {
        using _ = lifetime.use();
        await setImmediate();
        return await work();
      };
      return {
        run: (inputs) => inTurn(() => step.run(inputs)),
        chain: (inputs, moving, count) => inTurn(() => step.chain(inputs, moving, count)),
        dispose: () => lifetime.end(),
      };
    },
  };
}
