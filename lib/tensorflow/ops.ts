/**
 * GPT-2's operations on TensorFlow's own ones: fewer of them than tfjs's, in place where that helps, and without shapes
 * as constants, so that one captured step serves every batch size and cache length.
 */

import * as tf from "@tensorflow/tfjs";
import type { Activation, Dtype, Head, Linear, Ops } from "../backend/ops.ts";
import { geluNew, plainOps } from "../backend/plain.ts";
import { composeAttention } from "../backend/attention.ts";
import { cutInt8 } from "../backend/int8.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import { attentionParts } from "./attention.ts";
import { dynamicOperations } from "./dynamic.ts";
import { fusedLayerNorm, fusedLinear } from "./fused.ts";
import { bfloat16Linear, int8Linear, int8Shard, quantizedShard, type ShardOptions } from "./low_precision.ts";
import { keepsPacked } from "./packing.ts";
import type { Kernel } from "./probe.ts";
import { tensorflowSamplingOps } from "./sampling.ts";
import { columnRanges, columnShards, disposeShards, type Shard, wholeShard } from "./shards.ts";

const { float, int32 } = DataType;
const T = attr.type("T", float);

/** With more rows than this a packed weight is no faster, or laid out in yet another way. */
const PACKED_ROWS = 40;

/** The operations on a TensorFlow backend; in captures, with those of the faster kernels that work. */
export function tensorflowOps(backend: TensorflowBackend, kernels: ReadonlySet<Kernel> = new Set()): Ops {
  const has = (kernel: Kernel) => backend.binding.isCapturing && kernels.has(kernel);
  const { run, gather, shapeOf, concat, rows } = dynamicOperations(backend);
  const parts = attentionParts(backend);
  const argMax = (x: tf.Tensor2D) =>
    run<tf.Tensor1D>("ArgMax", [T, attr.type("Tidx", int32), attr.type("output_type", int32)], [
      x,
      tf.scalar(1, "int32"),
    ]);

  /** Keeps the shards. */
  function float32Linear(
    shards: readonly Shard[],
    activation: Activation,
    { transposed = false, modelSize = 0 }: ShardOptions,
  ): Head {
    const product = [attr.bool("transpose_a", false), attr.bool("transpose_b", transposed)];
    return {
      apply: (x) => {
        // Only steps that run often pack the head: a prefill has fewer rows there than tokens, and would pack it for them.
        const packed = x.shape[0] <= PACKED_ROWS && (backend.packs || !transposed) &&
          keepsPacked(backend, 4 * modelSize);
        return shards.map((shard) => {
          if (has("linear")) return fusedLinear(backend, x, shard, { activation, transposed, packed });
          const y = run<tf.Tensor2D>("BiasAdd", [T, attr.string("data_format", "NHWC")], [
            run("MatMul", [T, ...product], [x, shard.weight]),
            shard.bias!,
          ]);
          return activation === "gelu_new" ? geluNew(y) : y;
        });
      },
      dispose: () => disposeShards(shards),
    };
  }

  /** By dtype: shards, which are taken over -> a layer that makes a part of its output with each. */
  const sharded: Record<Dtype, (shards: readonly Shard[], activation: Activation, options: ShardOptions) => Head> = {
    float32: float32Linear,
    bfloat16: (shards, activation, options) => {
      const layer = bfloat16Linear(backend, shards, activation, options);
      disposeShards(shards);
      return layer;
    },
    int8: (shards, activation, options) => {
      const narrow = shards.map((shard) => quantizedShard(backend, shard, options));
      const layer = int8Linear(backend, narrow, activation, options);
      for (const { weight } of shards) weight.dispose();
      return layer;
    },
  };

  return {
    ...plainOps,
    writesInPlace: true,
    sampling: tensorflowSamplingOps(backend),

    embed(table, ids) {
      return gather(table, ids);
    },

    linear(weight, bias, { name, activation = "none", dtype, modelSize }) {
      return undivided(sharded[dtype]([wholeShard(name, weight, bias)], activation, { modelSize }));
    },

    head(wte, { name, dtype, modelSize }) {
      const noBias = dtype === "float32" ? tf.fill<tf.Rank.R1>([wte.shape[0]], 0) : null; // narrow ones need none
      const shards = columnShards(backend, name, wte, noBias, { transposed: true });
      noBias?.dispose();
      return sharded[dtype](shards, "none", { transposed: true, modelSize });
    },

    int8Linear(weight, bias, { name, activation = "none", modelSize }) {
      return undivided(int8Linear(backend, [int8Shard(backend, name, weight, bias)], activation, { modelSize }));
    },

    int8Head(wte, { name, modelSize }) {
      const shards = columnRanges(backend, wte.shape[0])
        .map((range) => int8Shard(backend, name, cutInt8(wte, 0, [range]), null));
      return int8Linear(backend, shards, "none", { modelSize });
    },

    layerNorm(x, gain, bias, epsilon) {
      // For one row the plain one is quicker, but rounds differently, and a row's answer must not depend on its companions.
      if (has("layerNorm")) return fusedLayerNorm(backend, x, gain, bias, epsilon);
      return plainOps.layerNorm(x, gain, bias, epsilon);
    },

    attention(bucket, group) {
      return composeAttention(parts, bucket, group);
    },

    splitByBucket(x, buckets) {
      if (buckets.length === 1) return [x];
      return rows(x, concat(buckets.map(({ positions }) => shapeOf(positions))), buckets.length);
    },

    joinBuckets(parts) {
      return parts.length === 1 ? parts[0] : concat(parts);
    },

    pick(x, rows) {
      return gather(x, rows);
    },

    copyRows(cache, to, source, from) {
      return tf.tidy(() => {
        const [, heads, S, size] = cache.shape, slots = source.shape[2];
        const numbers = to.flatMap((row) =>
          Array.from({ length: heads * slots }, (_, i) => (row * heads + Math.floor(i / slots)) * S + i % slots)
        );
        const copied = gather(source, tf.tensor1d([...from], "int32"));
        run("InplaceUpdate", [T], [
          tf.reshape(cache, [-1, size]),
          tf.tensor1d(numbers, "int32"),
          tf.reshape(copied, [-1, size]),
        ]);
        return cache;
      });
    },

    argMax(logits) {
      let best: { id: tf.Tensor; logit: tf.Tensor } | undefined, first = 0;
      for (const part of logits) { // each by itself, so that the cores share the work, and nothing is copied
        const own = argMax(part), id = first ? tf.add(own, tf.scalar(first, "int32")) : own, logit = tf.max(part, 1);
        first += part.shape[1];
        best = best
          ? {
            id: tf.where(tf.greater(logit, best.logit), id, best.id),
            logit: tf.maximum(logit, best.logit),
          }
          : { id, logit };
      }
      return best!.id as tf.Tensor1D;
    },
  };
}

/** A layer of one shard as one whose output is whole. */
function undivided({ apply, dispose }: Head): Linear {
  return { apply: (x) => apply(x)[0], dispose };
}
