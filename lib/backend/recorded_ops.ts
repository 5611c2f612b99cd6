/** GPT-2's operations where they are only recorded, while a step is captured; what computes them is made from the record. */

import type * as tf from "@tensorflow/tfjs";
import type { Bucket, Recorder } from "./expression.ts";
import type { Ops, Rectangle } from "./ops.ts";
import { plainOps } from "./plain.ts";

/** All but those that make weights and caches, which are written in place. */
export function recordedOps<W>(recorder: Recorder<W>): Omit<Ops, "linear" | "head" | "createCaches"> {
  const of = (tensor: tf.Tensor) => recorder.expressionOf(tensor);
  const bucketOf = (positions: tf.Tensor, rectangle: Rectangle | null): Bucket => ({
    positions: recorder.inputOf(positions),
    rectangle: rectangle && { rows: recorder.inputOf(rectangle.rows), columns: recorder.inputOf(rectangle.columns) },
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

    attention({ positions, rectangle, rowStarts, caches }, group) {
      const heads = rowStarts[group].shape[1], bucket = bucketOf(positions, rectangle);
      return {
        apply(qkv, layer) {
          const [keys, values] = caches[group].slice(2 * layer) as tf.Tensor4D[], size = qkv.shape[1] / (3 * heads);
          const inputs = { keys: recorder.inputOf(keys), values: recorder.inputOf(values) };
          const attend = { op: "attend", qkv: of(qkv), bucket, heads, size, ...inputs } as const;
          return { attended: recorder.standIn<tf.Tensor2D>(attend, [qkv.shape[0], heads * size]), keys, values };
        },
      };
    },

    splitByBucket(x, buckets) {
      if (buckets.length === 1) return [x];
      return buckets.map(({ positions, rectangle }) =>
        recorder.standIn({ op: "tokensOf", x: of(x), bucket: bucketOf(positions, rectangle) }, [
          positions.shape[0],
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
