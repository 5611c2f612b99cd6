/** Attention over the KV cache on libtensorflow, in captured steps of any number of rows, tokens and slots. */

import * as tf from "@tensorflow/tfjs";
import { type AttentionParts } from "../backend/attention.ts";
import { attr, DataType } from "./capi/attributes.ts";
import { dynamicOperations } from "./dynamic.ts";
import { dotProducts } from "./fused.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import { variables } from "./variables.ts";

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
 * The same for steps that XLA compiles: the caches are variables, whose new values go to the memory of the old ones. XLA leaves
 * out what is written beyond the cache.
 */
export function compiledAttentionParts(backend: TensorflowBackend): AttentionParts {
  const { run, reshape, shapeOf } = dynamicOperations(backend), { read, assign } = variables(backend);
  const attributes = [T, attr.type("Tindices", DataType.int32)];
  return {
    ...attentionParts(backend),
    writer(_, locations) {
      const numbers = reshape(locations, [-1, 1]);
      return (cache, update) => {
        const before = read(cache), size = before.shape[3];
        const flat = [reshape(before, [-1, size]), numbers, reshape(update, [-1, size])];
        const written = reshape<tf.Tensor4D>(run("TensorScatterUpdate", attributes, flat), shapeOf(before));
        assign(cache, written);
        return written;
      };
    },
  };
}
