/**
 * GPT-2's operations for XLA, TensorFlow's compiler, which makes a few kernels of a whole captured step: on a GPU, starting
 * a kernel takes longer than most of a step's operations do.
 *
 * XLA compiles again for each shape. The caches are variables, which it changes in place. Outside captures the operations run one by one, and mean the same.
 */

import * as tf from "@tensorflow/tfjs";
import type { Activation, Linear, LinearOptions, Ops } from "../backend/ops.ts";
import { geluNew } from "../backend/plain.ts";
import { type CacheTensorOps, plainCacheOps, TensorCaches } from "../backend/tensor_caches.ts";
import { compiledAttentionParts } from "./attention.ts";
import { composeAttention } from "../backend/attention.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import { cast } from "./raw.ts";
import { tensorflowOps } from "./ops.ts";
import { tensorflowSamplingOps } from "./sampling.ts";
import type { TensorMetadata } from "./capi/tensors.ts";
import { variables } from "./variables.ts";

const { float, bfloat16 } = DataType;

/** The operations on a TensorFlow backend whose captured steps XLA compiles. */
export function compiledOps(backend: TensorflowBackend): Ops {
  const parts = compiledAttentionParts(backend), { create, read, assign } = variables(backend);
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
  return {
    ...tensorflowOps(backend),
    writesInPlace: true,
    sampling: tensorflowSamplingOps(backend, { compiled: true }),

    linear(weight, bias, options) {
      return linear(backend, weight, bias, options);
    },

    head(wte, options) {
      const layer = linear(backend, wte, null, options);
      return { apply: (x) => [layer.apply(x)], dispose: layer.dispose };
    },

    attention(bucket, group) {
      return composeAttention(parts, bucket, group);
    },

    cachesInOne: false,
    createCaches: (...made) => new TensorCaches(cacheOps, ...made),

    keepForSteps(x) {
      const copy = backend.copyToDevice(x) as typeof x;
      x.dispose();
      return copy;
    },
  };
}

/** weight [K, M] and its bias [M], which are taken over; without a bias [M, K], which stays the caller's. */
function linear(
  backend: TensorflowBackend,
  weight: tf.Tensor2D,
  bias: tf.Tensor1D | null,
  { activation = "none", dtype }: LinearOptions,
): Linear {
  const rounded = dtype === "bfloat16" ? cast(backend, weight, float, bfloat16) : null;
  if (rounded && bias) weight.dispose();
  return {
    apply: (x) => {
      const transposed = !bias;
      const y = rounded ? bfloat16Product(backend, x, rounded, transposed) : tf.matMul(x, weight, false, transposed);
      return finish(y as tf.Tensor2D, bias, activation);
    },
    dispose: () => {
      if (rounded) backend.free([rounded]);
      tf.dispose(bias ? rounded ? bias : [weight, bias] : []);
    },
  };
}

/** x [N, K] float32, weight [K, M] or, transposed, [M, K] bfloat16 -> [N, M] float32. */
function bfloat16Product(
  backend: TensorflowBackend,
  x: tf.Tensor2D,
  weight: TensorMetadata,
  transposed: boolean,
): tf.Tensor2D {
  const input = cast(backend, x, float, bfloat16);
  const attributes = [
    attr.type("T", bfloat16),
    attr.bool("transpose_a", false),
    attr.bool("transpose_b", transposed),
  ];
  const [product] = backend.executeRaw("MatMul", attributes, [input, weight]);
  const wide = backend.wrap(cast(backend, product, bfloat16, float)) as tf.Tensor2D;
  backend.free([input, product]);
  return wide;
}

function finish(y: tf.Tensor2D, bias: tf.Tensor1D | null, activation: Activation): tf.Tensor2D {
  const sum = bias ? tf.add<tf.Tensor2D>(y, bias) : y;
  return activation === "gelu_new" ? geluNew(sum) : sum;
}
