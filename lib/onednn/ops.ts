/** GPT-2's operations on oneDNN: they are recorded while a step is captured, and have no other use. */

import * as tf from "@tensorflow/tfjs";
import type { Recorder } from "../backend/expression.ts";
import { type ActivationRange, type Int8Weight, withZero } from "../backend/int8.ts";
import type { LinearOptions, Ops } from "../backend/ops.ts";
import { recordedOps } from "../backend/recorded_ops.ts";
import { CachesInOne } from "../tensorflow/caches.ts";
import { cachedType } from "./attention.ts";
import type { TensorflowBackend } from "../tensorflow/tfjs/backend.ts";
import { DataType, type Onednn } from "./library.ts";
import { BYTES } from "./plan.ts";
import { type Form, int8Source, Weight, type WeightSource } from "./weight.ts";

/** What the operations are made with. */
export interface OpsOptions {
  readonly library: Onednn;
  readonly recorder: Recorder<Weight>;
  /** Keeps caches. */
  readonly tensorflow: TensorflowBackend;
  /** The numbers of a tensor of the model. */
  valuesOf(tensor: tf.Tensor): Float32Array;
}

/** The operations. */
export function onednnOps({ library, recorder, tensorflow, valuesOf }: OpsOptions): Ops {
  /** A layer of a weight: [N, K] -> [N, M]. Takes over the bias. */
  function layer(source: WeightSource, bias: tf.Tensor1D | null, options: Omit<LinearOptions, "dtype">, form: Form) {
    const weight = new Weight(library, source, bias && valuesOf(bias), form), gelu = options.activation === "gelu_new";
    bias?.dispose();
    return {
      apply(x: tf.Tensor2D): tf.Tensor2D {
        const product = { op: "linear", x: recorder.expressionOf(x), weight, bias: null, gelu } as const;
        return recorder.standIn(product, [x.shape[0], weight.outputs]);
      },
      dispose: () => weight.dispose(),
    };
  }

  /** A float32 weight [K, M], or [M, K] if transposed, which stays the caller's. */
  function sourceOf(weight: tf.Tensor2D, transposed: boolean, { dtype }: Pick<LinearOptions, "dtype">): WeightSource {
    const [inputs, outputs] = transposed ? weight.shape.toReversed() : weight.shape;
    const scale = dtype === "int8" ? scalesOf(weight, transposed ? 1 : 0) : null;
    return { values: valuesOf(weight), inputs, outputs, transposed, scale };
  }

  return {
    ...recordedOps(recorder),

    linear(weight, bias, options) {
      const made = layer(sourceOf(weight, false, options), bias, options, formOf(options));
      weight.dispose();
      return made;
    },

    head(wte, options) {
      const { apply, dispose } = layer(sourceOf(wte, true, options), null, options, formOf(options));
      return { apply: (x) => [apply(x)], dispose };
    },

    int8Linear(weight, bias, options) {
      return layer(int8Source(weight), bias, options, formOf({ ...options, dtype: "int8" }));
    },

    int8Head(wte: Int8Weight, options) {
      const { apply, dispose } = layer(int8Source(wte), null, options, formOf({ ...options, dtype: "int8" }));
      return { apply: (x) => [apply(x)], dispose };
    },

    takesInputRanges: true,

    cacheTensors: () => 1,
    cachedBytes: (dtype) => BYTES[cachedType(library, DataType[dtype])],
    createCaches: (...made) => new CachesInOne(tensorflow, ...made),
  };
}

/** As what a layer takes its inputs. */
function formOf({ dtype, inputRange }: Pick<LinearOptions, "dtype" | "inputRange">): Form {
  if (dtype !== "int8") return { type: DataType[dtype] };
  return inputRange ? rangeForm(inputRange) : { type: DataType.int8 };
}

/** Numbers from 0 to 255 for a range. */
function rangeForm(range: ActivationRange): Form {
  const [low, high] = withZero(range);
  return { type: DataType.uint8, low, step: (high - low) / 255 };
}

/** What the int8 numbers of each output channel are multiplied by: its largest magnitude is 127. */
function scalesOf(weight: tf.Tensor2D, axis: 0 | 1): Float32Array {
  return tf.tidy(() => {
    const largest = tf.maximum(tf.max(tf.abs(weight), axis), 1e-12);
    return tf.div(largest, 127).dataSync<"float32">() as Float32Array;
  });
}
