/** GPT-2's operations where they are only recorded, while a step is captured; what computes them is made from the record. */

import type * as tf from "@tensorflow/tfjs";
import type { Bucket, Recorder } from "./expression.ts";
import type { BucketInputs, Ops } from "./ops.ts";
import { plainOps } from "./plain.ts";

/** All but those that make weights and caches, which are written in place. */
export function recordedOps<W>(recorder: Recorder<W>): Omit<Ops, "linear" | "head" | "createCaches"> {
  const of = (tensor: tf.Tensor) => recorder.expressionOf(tensor);
  const input = (tensor: tf.Tensor) => recorder.inputOf(tensor);
  const bucketOf = ({ positions, rectangle, slots, caches }: BucketInputs, group = 0): Bucket => ({
    positions: input(positions),
    rectangle: rectangle && { rows: input(rectangle.rows), columns: input(rectangle.columns) },
    slots: input(slots),
    caches: caches[group].map(input),
  });
  return {
    ...plainOps,

    writesInPlace: true,

    embed(table, ids) {
      return recorder.standIn({ op: "embed", table, ids: recorder.inputOf(ids) }, [ids.size, table.shape[1]]);
    },

    add(a, b) {
      return recorder.standIn({ op: "add", a: of(a), b: of(b) }, a.shape);
    },

    layerNorm(x, gain, bias, epsilon) {
      return recorder.standIn({ op: "layerNorm", x: of(x), gain, bias, epsilon }, x.shape);
    },

    attention(inputs, group) {
      const heads = inputs.rowStarts[group].shape[1], bucket = bucketOf(inputs, group);
      return {
        apply(qkv, layer) {
          const size = qkv.shape[1] / (3 * heads);
          const attend = { op: "attend", qkv: of(qkv), bucket, heads, size, layer } as const;
          return { attended: recorder.standIn(attend, [qkv.shape[0], heads * size]), made: [] };
        },
      };
    },

    splitByBucket(x, buckets) {
      if (buckets.length === 1) return [x];
      return buckets.map((bucket) =>
        recorder.standIn({ op: "tokensOf", x: of(x), bucket: bucketOf(bucket) }, [
          bucket.positions.shape[0],
          x.shape[1],
        ])
      );
    },

    joinBuckets(parts) {
      if (parts.length === 1) return parts[0];
      const tokens = parts.reduce((sum, { shape }) => sum + shape[0], 0);
      return recorder.standIn({ op: "join", parts: parts.map(of) }, [tokens, parts[0].shape[1]]);
    },

    pick(x, rows) {
      return recorder.standIn({ op: "pick", x: of(x), rows: recorder.inputOf(rows) }, [rows.shape[0], x.shape[1]]);
    },

    argMax(logits) {
      return recorder.standIn({ op: "argMax", logits: of(logits[0]) }, [logits[0].shape[0]], "int32");
    },

    maxLogprob(logits) {
      return recorder.standIn({ op: "maxLogprob", logits: of(logits[0]) }, [logits[0].shape[0]]);
    },
  };
}
