/**
 * GPT-2's operations on TensorFlow's own ones: fewer of them than tfjs's, in place where that helps, and without shapes
 * as constants, so that one captured step serves every batch size and cache length.
 */

import * as tf from "@tensorflow/tfjs";
import type { Activation, Dtype, Head, Linear, Ops } from "../backend/ops.ts";
import { geluNew, plainOps, weigh } from "../backend/plain.ts";
import { cutInt8 } from "../backend/int8.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import { dotProducts, fusedLayerNorm, fusedLinear } from "./fused.ts";
import { bfloat16Linear, int8Linear, int8Shard, quantizedShard, type ShardOptions } from "./low_precision.ts";
import { keepsPacked } from "./packing.ts";
import type { Kernel } from "./probe.ts";
import { columnRanges, columnShards, disposeShards, type Shard, wholeShard } from "./shards.ts";

const { float, int32 } = DataType;
const T = attr.type("T", float);

/** With more rows than this a packed weight is no faster, or laid out in yet another way. */
const PACKED_ROWS = 40;

/** The operations on a TensorFlow backend; in captures, with those of the faster kernels that work. */
export function tensorflowOps(backend: TensorflowBackend, kernels: ReadonlySet<Kernel> = new Set()): Ops {
  const has = (kernel: Kernel) => backend.binding.isCapturing && kernels.has(kernel);
  const run = <R extends tf.Tensor>(
    op: string,
    attributes: Parameters<typeof backend.execute>[1],
    inputs: tf.Tensor[],
  ) => backend.execute(op, attributes, inputs)[0] as R;
  const reshape = <R extends tf.Tensor>(x: tf.Tensor, shape: tf.Tensor) =>
    run<R>("Reshape", [attr.type("T", x.dtype === "int32" ? int32 : float), attr.type("Tshape", int32)], [x, shape]);
  const ints = (...values: number[]) => tf.tensor1d(values, "int32");
  const shapeOf = (x: tf.Tensor) =>
    run<tf.Tensor1D>("Shape", [attr.type("T", x.dtype === "int32" ? int32 : float), attr.type("out_type", int32)], [x]);
  const concat = (parts: tf.Tensor1D[]) =>
    run("ConcatV2", [attr.type("T", int32), attr.int("N", parts.length), attr.type("Tidx", int32)], [
      ...parts,
      tf.scalar(0, "int32"),
    ]);
  const transpose = <R extends tf.Tensor = tf.Tensor4D>(x: tf.Tensor, ...axes: number[]) =>
    run<R>("Transpose", [T, attr.type("Tperm", int32)], [x, ints(...axes)]);
  const gather = (table: tf.Tensor, ids: tf.Tensor, axis: number) =>
    run<tf.Tensor>("GatherV2", [
      attr.type("Tparams", float),
      attr.type("Tindices", int32),
      attr.type("Taxis", int32),
      attr.int("batch_dims", 0),
    ], [table, ids, tf.scalar(axis, "int32")]);

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

    embed(table, ids) {
      return gather(table, reshape(ids, ints(-1)), 0) as tf.Tensor2D; // tfjs's gather reads its ids back to the host
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

    splitHeads(qkv, ids, heads) {
      const size = qkv.shape[1] / 3 / heads;
      const parts = backend.execute("Split", [T, attr.int("num_split", 3)], [tf.scalar(1, "int32"), qkv], 3);
      const split = ids.shape[1] === 1
        ? parts.map((part) => reshape(part, ints(-1, heads, 1, size))) // one token: nothing to move
        : parts.map((part) => transpose(reshape(part, concat([shapeOf(ids), ints(heads, size)])), 0, 2, 1, 3));
      return split as [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D];
    },

    mergeHeads(x) {
      const [, H, T, size] = x.shape;
      return reshape(T === 1 ? x : transpose(x, 0, 2, 1, 3), ints(-1, H * size));
    },

    locateSlots(rowStarts, slots) {
      return reshape(tf.add(rowStarts, slots), ints(-1));
    },

    writeSlots(cache, update, location) {
      // The cache seen as rows of D/H numbers: only the new ones are touched.
      const size = cache.shape[3];
      const rows = [reshape(cache, ints(-1, size)), location, reshape(update, ints(-1, size))];
      return reshape(run("InplaceUpdate", [T], rows), shapeOf(cache));
    },

    lastToken(x, ids) {
      if (ids.shape[1] === 1) return x.clone();
      const tokens = reshape<tf.Tensor3D>(x, concat([shapeOf(ids), ints(x.shape[1])])); // [B, T, D]
      const whole = 0b101, shrink = 0b010; // all of axes 0 and 2, one index of axis 1
      return run("StridedSlice", [
        T,
        attr.type("Index", int32),
        attr.int("begin_mask", whole),
        attr.int("end_mask", whole),
        attr.int("ellipsis_mask", 0),
        attr.int("new_axis_mask", 0),
        attr.int("shrink_axis_mask", shrink),
      ], [tokens, ints(0, -1, 0), ints(0, 0, 0), ints(1, 1, 1)]);
    },

    attend(query, keys, values, mask) {
      if (!has("attention") || query.shape[2] > 1) return plainOps.attend(query, keys, values, mask);
      return weigh(dotProducts(backend, query, keys), values, mask);
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
