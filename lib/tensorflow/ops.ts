/**
 * GPT-2's operations on TensorFlow's own ones: fewer of them than tfjs's, in place where that helps, and without shapes
 * as constants, so that one captured step serves every batch size and cache length.
 */

import * as tf from "@tensorflow/tfjs";
import type { Activation, DividedLinear, Dtype, Linear, LinearOptions, Ops } from "../backend/ops.ts";
import { geluNew, plainOps } from "../backend/plain.ts";
import { composeAttention } from "../backend/attention.ts";
import { cutInt8 } from "../backend/int8.ts";
import { CachesInOne } from "./caches.ts";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import { attentionParts } from "./attention.ts";
import { dynamicOperations } from "./dynamic.ts";
import { fusedLayerNorm, fusedLinear } from "./fused.ts";
import { bfloat16Linear } from "./bfloat16.ts";
import { applyInt8Chain, Int8Linear, int8Part, quantizedPart } from "./int8.ts";
import { keepsPacked, LEAST_ROWS, padsFewRows } from "./packing.ts";
import type { PrivateKernel } from "./probe.ts";
import { tensorflowSamplingOps } from "./sampling.ts";
import {
  type ColumnPart,
  type ColumnPartOptions,
  columnParts,
  columnRanges,
  disposeParts,
  wholePart,
} from "./column_parts.ts";

const { float, int32 } = DataType;
const T = attr.type("T", float);

/** With more rows than this a packed weight is no faster, or laid out in yet another way. */
const PACKED_ROWS = 40;

/** The operations on a TensorFlow backend; in captures, with those of the faster kernels that work. */
export function tensorflowOps(backend: TensorflowBackend, kernels: ReadonlySet<PrivateKernel> = new Set()): Ops {
  const usesRanges = kernels.has("staticInt8");
  const has = (kernel: PrivateKernel) => backend.binding.isCapturing && kernels.has(kernel);
  const { run, gather, reshape, shapeOf, concat, ints, rows } = dynamicOperations(backend);
  const ofAttention = attentionParts(backend);
  /** [M, m] -> of each row the largest number and its column, [M, 1] each: sooner than Max and ArgMax find them. */
  const largest = (x: tf.Tensor2D) =>
    backend.execute("TopKV2", [T, attr.bool("sorted", true)], [x, tf.scalar(1, "int32")], 2) as tf.Tensor2D[];

  /** Keeps the parts. */
  function float32Linear(
    parts: readonly ColumnPart[],
    activation: Activation,
    { transposed = false, modelSize }: ColumnPartOptions,
  ): DividedLinear {
    const product = [attr.bool("transpose_a", false), attr.bool("transpose_b", transposed)];
    return {
      apply: (x) => {
        // Only steps that run often pack the head: a prefill has fewer rows there than tokens, and would pack it for them.
        const packed = x.shape[0] <= PACKED_ROWS && (backend.packs || !transposed) &&
          keepsPacked(backend, "float32", x.shape[0], modelSize);
        return parts.map((part) => {
          if (has("linear")) return fusedLinear(backend, x, part, { activation, transposed, packed });
          const y = run<tf.Tensor2D>("BiasAdd", [T, attr.string("data_format", "NHWC")], [
            run("MatMul", [T, ...product], [x, part.weight]),
            part.bias!,
          ]);
          return activation === "gelu_new" ? geluNew(y) : y;
        });
      },
      dispose: () => disposeParts(parts),
    };
  }

  /** Options without the range that the kernels here cannot use. */
  const known = <O extends Pick<LinearOptions, "inputRange">>(options: O): O =>
    usesRanges ? options : { ...options, inputRange: undefined };

  /** By dtype: parts, which are taken over -> a layer that makes a part of its output with each. */
  const divided: Record<
    Dtype,
    (
      parts: readonly ColumnPart[],
      activation: Activation,
      options: ColumnPartOptions & Pick<LinearOptions, "inputRange">,
    ) => DividedLinear
  > = {
    float32: float32Linear,
    bfloat16: (parts, activation, options) => {
      const layer = bfloat16Linear(backend, parts, activation, options);
      disposeParts(parts);
      return layer;
    },
    int8: (parts, activation, options) => {
      const quantized = parts.map((part) => quantizedPart(backend, part, options));
      const layer = new Int8Linear(backend, quantized, activation, known(options));
      for (const { weight } of parts) weight.dispose();
      return layer;
    },
  };

  return {
    ...plainOps,
    writesInPlace: true,
    takesInputRanges: usesRanges,
    sampling: tensorflowSamplingOps(backend),

    embed(table, ids) {
      return gather(table, ids);
    },

    linear(weight, bias, { name, activation = "none", dtype, ...options }) {
      return new Undivided(divided[dtype]([wholePart(name, weight, bias)], activation, options));
    },

    head(wte, { name, dtype, ...options }) {
      const noBias = dtype === "float32" ? tf.fill<tf.Rank.R1>([wte.shape[0]], 0) : null; // low-precision ones need none
      const parts = columnParts(backend, name, wte, noBias, { transposed: true });
      noBias?.dispose();
      return divided[dtype](parts, "none", { ...options, transposed: true });
    },

    int8Linear(weight, bias, { name, activation = "none", ...options }) {
      const part = int8Part(backend, name, weight, bias);
      return new Undivided(new Int8Linear(backend, [part], activation, known(options)));
    },

    int8Head(wte, { name, ...options }) {
      const parts = columnRanges(backend, wte.shape[0])
        .map((range) => int8Part(backend, name, cutInt8(wte, 0, [range]), null));
      return new Int8Linear(backend, parts, "none", known(options));
    },

    chain(first, second, x) {
      const [a, b] = [first, second].map((layer) => layer instanceof Undivided ? layer.divided : layer);
      const isStatic = (layer: unknown) => layer instanceof Int8Linear && layer.inputRange !== undefined;
      if (isStatic(a) && isStatic(b)) return applyInt8Chain(backend, a as Int8Linear, b as Int8Linear, x);
      return second.apply(first.apply(x));
    },

    layerNorm(x, gain, bias, epsilon) {
      // For one row the plain one is quicker, but rounds differently, and a row's answer must not depend on its companions.
      if (has("layerNorm")) return fusedLayerNorm(backend, x, gain, bias, epsilon);
      return plainOps.layerNorm(x, gain, bias, epsilon);
    },

    attention(bucket, group) {
      return composeAttention(ofAttention, bucket, group);
    },

    splitByBucket(x, buckets) {
      if (buckets.length === 1) return [x];
      return rows(x, concat(buckets.map(({ positions }) => shapeOf(positions))), buckets.length);
    },

    joinBuckets(parts) {
      return parts.length === 1 ? parts[0] : concat(parts);
    },

    rowPadding(tokens, weights) {
      const { dtype, modelSize } = weights;
      if (!padsFewRows(backend, dtype, tokens.shape[0], modelSize)) return plainOps.rowPadding(tokens, weights);
      const count = shapeOf(tokens), missing = tf.maximum(tf.sub(ints(LEAST_ROWS), count), ints(0)); // [1] each
      const paddings = reshape(concat([ints(0), missing, ints(0, 0)]), [2, 2]), size = concat([count, ints(-1)]);
      return {
        add: (x) => run("Pad", [T, attr.type("Tpaddings", int32)], [x, paddings]),
        remove: (x) => run("Slice", [T, attr.type("Index", int32)], [x, ints(0, 0), size]),
      };
    },

    pick(x, rows) {
      return gather(x, rows);
    },

    cacheTensors: () => 1,
    createCaches: (...made) => new CachesInOne(backend, ...made),

    argMax(logits) {
      if (logits.length === 1) {
        const attributes = [T, attr.type("Tidx", int32), attr.type("output_type", int32)];
        return run("ArgMax", attributes, [logits[0], tf.scalar(1, "int32")]);
      }
      let first = 0;
      const found = logits.map((part) => { // each by itself, so that the cores share the work, and nothing is copied
        const [logit, column] = largest(part), id = first ? tf.add(column, tf.scalar(first, "int32")) : column;
        first += part.shape[1];
        return { logit, id };
      });
      const { id } = found.reduce((best, other) => ({
        logit: tf.maximum(best.logit, other.logit),
        id: tf.where(tf.greater(other.logit, best.logit), other.id, best.id),
      }));
      return reshape(id, [-1]);
    },
  };
}

/** A layer of one part as one whose output is whole. */
class Undivided implements Linear {
  constructor(readonly divided: DividedLinear) {}

  apply(x: tf.Tensor2D): tf.Tensor2D {
    return this.divided.apply(x)[0];
  }

  dispose(): void {
    this.divided.dispose();
  }
}
