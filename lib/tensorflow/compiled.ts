/**
 * GPT-2's operations for XLA, TensorFlow's compiler, which makes a few kernels of a whole captured step: on a GPU, starting
 * a kernel takes longer than most of a step's operations do.
 *
 * XLA compiles again for each shape. The caches are variables, which it changes in place. Outside captures the operations run one by one, and mean the same.
 */

import * as tf from "@tensorflow/tfjs";
import type { Activation, Linear, LinearOptions, Ops } from "../backend/ops.ts";
import { geluNew, normalise } from "../backend/plain.ts";
import { type CacheTensorOps, plainCacheOps } from "../backend/tensor_caches.ts";
import { compiledAttentionParts, compiledTokenAttentionParts } from "./attention.ts";
import { composeAttention } from "../backend/attention.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import { dynamicOperations } from "./dynamic.ts";
import { cast } from "./raw.ts";
import { tensorflowOps } from "./ops.ts";
import { tensorflowSamplingOps } from "./sampling.ts";
import { ReusedCaches } from "./reused_caches.ts";
import type { TensorMetadata } from "./capi/tensors.ts";
import { variables } from "./variables.ts";

const { float, bfloat16, int32 } = DataType;
const SLICE = [attr.type("T", float), attr.type("Index", int32)];

/** The head has a whole group of so many words: a library's matrix multiplication would else copy all of them in every step. */
const WHOLE = 8;

/** The operations on a TensorFlow backend whose captured steps XLA compiles, or, without `compiled`, could. */
export function compiledOps(backend: TensorflowBackend, compiled: boolean): Ops {
  const parts = compiledAttentionParts(backend), ofOneToken = compiledTokenAttentionParts(backend);
  const { create, read, assign } = variables(backend);
  const cacheOps: CacheTensorOps = {
    emptyCaches(shape, count) {
      const zeros = tf.fill<tf.Rank.R4>(shape, 0); // shared until the first step: a kernel for each would take longer than one
      const caches = Array.from({ length: count }, () => create(zeros));
      zeros.dispose();
      return caches;
    },

    resizeCache(cache, rows, slots) {
      return tf.tidy(() => create(plainCacheOps.resizeCache(read(cache), rows, slots)));
    },

    copyRows(cache, to, source, from) {
      tf.tidy(() => assign(cache, plainCacheOps.copyRows(read(cache), to, read(source), from)));
      return cache;
    },

    readCache: read,
  };
  const { run, ints } = dynamicOperations(backend);
  return {
    ...tensorflowOps(backend),
    writesInPlace: true,
    sampling: tensorflowSamplingOps(backend, { compiled: true }),

    linear(weight, bias, options) {
      const columns = tf.transpose(weight);
      weight.dispose();
      return linear(backend, columns, bias, options);
    },

    head(wte, options) {
      const [words] = wte.shape, padded = WHOLE * Math.ceil(words / WHOLE);
      const layer = linear(backend, tf.pad(wte, [[0, padded - words], [0, 0]]), null, options);
      const first = (logits: tf.Tensor2D) => run<tf.Tensor2D>("Slice", SLICE, [logits, ints(0, 0), ints(-1, words)]);
      return { apply: (x) => [first(layer.apply(x))], dispose: layer.dispose };
    },

    normedLinear(norm, weight, bias, options) {
      const [columns, shifted] = tf.tidy(() => [
        tf.transpose(tf.mul<tf.Tensor2D>(weight, tf.reshape(norm.weight, [-1, 1]))),
        tf.add<tf.Tensor1D>(bias, tf.sum(tf.mul(weight, tf.reshape(norm.bias, [-1, 1])), 0)), // without TF32
      ]);
      tf.dispose([weight, bias]);
      return linear(backend, columns, shifted, options, norm.epsilon);
    },

    attention(bucket, group, tokens) {
      const single = compiled && backend.binding.isCapturing && tokens === 1 && !bucket.rectangle;
      return composeAttention(single ? ofOneToken : parts, bucket, group);
    },

    cacheTensors: (layers) => layers,
    createCaches: (...made) => new ReusedCaches(cacheOps, ...made),

    keepForSteps(x) {
      const copy = backend.copyToDevice(x) as typeof x;
      x.dispose();
      return copy;
    },
  };
}

/**
 * weight [M, K], which is taken over, and a bias [M], if there is one. With `epsilon` each row of the input is first brought to
 * mean 0 and variance 1.
 */
function linear(
  backend: TensorflowBackend,
  weight: tf.Tensor2D,
  bias: tf.Tensor1D | null,
  { activation = "none", dtype }: LinearOptions,
  epsilon?: number,
): Linear {
  const rounded = dtype === "bfloat16" ? cast(backend, weight, float, bfloat16) : null;
  if (rounded) weight.dispose();
  const wide = () => rounded ? backend.wrap(cast(backend, rounded, bfloat16, float)) : weight;
  const sums = epsilon === undefined ? null : tf.tidy(() => tf.sum<tf.Tensor1D>(wide(), 1)); // [M]
  const product = (x: tf.Tensor2D) => {
    if (x.shape[0] === 1) return sums ? normedRow(x, epsilon!, rowProduct(x, wide()), sums) : rowProduct(x, wide());
    const input = sums ? normalise(x, epsilon!) : x;
    return rounded ? bfloat16Product(backend, input, rounded) : tf.matMul<tf.Tensor2D>(input, weight, false, true);
  };
  return {
    apply: (x) => finish(product(x), bias, activation),
    dispose: () => {
      if (rounded) backend.free([rounded]);
      tf.dispose([...rounded ? [] : [weight], ...bias ? [bias] : [], ...sums ? [sums] : []]);
    },
  };
}

/**
 * The product [1, M] of one row x [1, K], as if x had been normalised before: `sums` [M] are those of the weight's columns. So the
 * product waits for no mean, and needs no normalised copy of x; and both sums over x are one kernel.
 */
function normedRow(x: tf.Tensor2D, epsilon: number, product: tf.Tensor2D, sums: tf.Tensor1D): tf.Tensor2D {
  return tf.tidy(() => {
    const mean = tf.mean(x, 1, true), variance = tf.sub(tf.mean(tf.square(x), 1, true), tf.square(mean));
    return tf.mul(tf.sub(product, tf.mul(mean, sums)), tf.rsqrt(tf.add(tf.relu(variance), epsilon)));
  });
}

/**
 * x [1, K], weight [M, K] -> [1, M], as a sum: XLA makes one kernel of it and of what surrounds it, which reads the weight at the
 * speed of the memory. A library's matrix multiplication of few rows does not.
 */
function rowProduct(x: tf.Tensor2D, weight: tf.Tensor): tf.Tensor2D {
  return tf.reshape(tf.sum(tf.mul(weight, x), 1), [1, -1]);
}

/** x [N, K] float32, weight [M, K] bfloat16 -> [N, M] float32. */
function bfloat16Product(backend: TensorflowBackend, x: tf.Tensor2D, weight: TensorMetadata): tf.Tensor2D {
  const input = cast(backend, x, float, bfloat16);
  const attributes = [attr.type("T", bfloat16), attr.bool("transpose_a", false), attr.bool("transpose_b", true)];
  const [product] = backend.executeRaw("MatMul", attributes, [input, weight]);
  const wide = backend.wrap(cast(backend, product, bfloat16, float)) as tf.Tensor2D;
  backend.free([input, product]);
  return wide;
}

function finish(y: tf.Tensor2D, bias: tf.Tensor1D | null, activation: Activation): tf.Tensor2D {
  const sum = bias ? tf.add<tf.Tensor2D>(y, bias) : y;
  return activation === "gelu_new" ? geluNew(sum) : sum;
}
