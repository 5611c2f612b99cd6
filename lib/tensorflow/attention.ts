/** Attention over the KV cache on libtensorflow, in captured steps of any number of rows, tokens and slots. */

import * as tf from "@tensorflow/tfjs";
import { type AttentionParts } from "../backend/attention.ts";
import { attr, DataType } from "./capi/attributes.ts";
import { dynamicOperations } from "./dynamic.ts";
import { dotProducts } from "./fused.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

const T = attr.type("T", DataType.float);

/** The parts of attention; the cache is written in place: only the new slots are touched. */
export function attentionParts(backend: TensorflowBackend): AttentionParts {
  const { run, gather, reshape, shapeOf, columns, element } = dynamicOperations(backend);
  return {
    reshape,
    gather,
    thirds: (qkv) => columns(qkv, 3),
    columnsOf: (tokens) => element(shapeOf(tokens), 1),
    scores(query, keys) {
      return query.shape[2] === 1 ? dotProducts(backend, query, keys) : tf.matMul(query, keys, false, true);
    },
    writer(_, locations) {
      const numbers = reshape(locations, [-1]);
      return (cache, update) => {
        const size = cache.shape[3], flat = [reshape(cache, [-1, size]), numbers, reshape(update, [-1, size])];
        return reshape(run("InplaceUpdate", [T], flat), shapeOf(cache));
      };
    },
  };
}

/**
 * The same, but writing makes a new cache. XLA joins that with the copy that it makes anyway, and leaves out what lies beyond
 * the cache.
 */
export function copyingAttentionParts(backend: TensorflowBackend): AttentionParts {
  const { run, reshape, shapeOf } = dynamicOperations(backend);
  return {
    ...attentionParts(backend),
    writer({ positions, rectangle, slots }, locations) {
      if (!rectangle) {
        const here = tf.equal(reshape(slots, [-1, 1]), reshape(positions, [-1, 1, 1, 1])); //      [R, 1, S, 1]
        return (cache, update) =>
          run("SelectV2", [T], [here, reshape(update, [-1, cache.shape[1], 1, cache.shape[3]]), cache]);
      }
      const numbers = reshape(locations, [-1, 1]), attributes = [T, attr.type("Tindices", DataType.int32)];
      return (cache, update) => {
        const size = cache.shape[3], flat = [reshape(cache, [-1, size]), numbers, reshape(update, [-1, size])];
        return reshape(run("TensorScatterUpdate", attributes, flat), shapeOf(cache));
      };
    },
  };
}
