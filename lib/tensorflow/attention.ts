/** Attention over the KV cache on libtensorflow, in captured steps of any number of rows, tokens and slots. */

import * as tf from "@tensorflow/tfjs";
import { type AttentionParts, oneByOne } from "../backend/attention.ts";
import { attr, DataType } from "./capi/attributes.ts";
import { dynamicOperations } from "./dynamic.ts";
import { productsOfRows } from "./fused.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";
import { variables } from "./variables.ts";

const T = attr.type("T", DataType.float);

/** The parts of attention; the cache is written in place: only the new slots are touched. */
export function attentionParts(backend: TensorflowBackend): AttentionParts {
  const { run, gather, reshape, shapeOf, concat, ints, columns, element } = dynamicOperations(backend);
  return {
    reshape,
    gather,
    thirds: (qkv) => columns(qkv, 3),
    columnsOf: (tokens) => element(shapeOf(tokens), 1),
    scores(query, keys) {
      return query.shape[2] === 1 ? productsOfRows(backend, query, keys, true) : tf.matMul(query, keys, false, true);
    },
    weigh(weights, values) {
      return weights.shape[2] === 1 ? productsOfRows(backend, weights, values, false) : tf.matMul(weights, values);
    },
    writer({ caches, rowStarts, slots }, group, locations) {
      const [whole] = caches[group], [count, , size] = whole.shape, starts = rowStarts[group];
      const each = backend.execute("Unpack", [T, attr.int("num", count), attr.int("axis", 0)], [whole], count);
      const shape = concat([shapeOf(starts), shapeOf(slots), ints(size)]); // [R, heads, S, D/H]
      const used = concat([tf.prod(tf.slice(shape, 0, 3), 0, true) as tf.Tensor1D, ints(size)]);
      const numbers = reshape(locations, [-1]), types = [T, attr.type("Index", DataType.int32)];
      return oneByOne((cache, update) => {
        const written = run("InplaceUpdate", [T], [each[cache], numbers, reshape(update, [-1, size])]);
        return reshape(run("Slice", types, [written, ints(0, 0), used]), shape); // the same memory
      });
    },
  };
}

/**
 * The same for steps that XLA compiles: the caches are variables, whose new values go to the memory of the old ones. One holds the
 * keys and values of a layer, [R, 2·heads, S, D/H], so that one kernel writes both. XLA leaves out what is written beyond the cache.
 */
export function compiledAttentionParts(backend: TensorflowBackend): AttentionParts {
  const { run, reshape, shapeOf, ints, columns, element } = dynamicOperations(backend);
  const { read, assign } = variables(backend), index = attr.type("Tindices", DataType.int32);
  return {
    ...attentionParts(backend),
    writer({ caches, positions, rowStarts, slots }, group, locations) {
      const [, heads] = rowStarts[group].shape, types = ["T", "Index"].map((name) => attr.type(name, DataType.int32));
      const first = run("Slice", types, [locations, ints(0, 0), ints(-1, 1)]);
      const rowsBefore = tf.sub(first, reshape(positions, [-1, 1])); // [n, 1]: their keys' slots; as many of their values
      const ofKeys = reshape(tf.add(locations, rowsBefore), [-1, 1, heads]);
      const besides = tf.mul(element(shapeOf(slots), 0), reshape(ints(0, heads), [2, 1])); // 0, and for values a row's keys
      const numbers = reshape(tf.add(ofKeys, besides), [-1, 1]); // [n·2·heads, 1]
      return (layer, ...update) => {
        const cache = caches[group][layer] as tf.Tensor4D, before = read(cache), size = before.shape[3];
        const flat = [reshape(before, [-1, size]), numbers, reshape(tf.concat(update, 1), [-1, size])];
        const written = reshape<tf.Tensor4D>(run("TensorScatterUpdate", [T, index], flat), shapeOf(before));
        assign(cache, written);
        const [keys, values] = columns(written, 2);
        return { keys, values };
      };
    },
  };
}

/**
 * The same for a step of one token of one row, which has the same slot in all heads: a slice, which XLA writes in less time than it
 * scatters. One beyond the cache would be moved into it, but rows have room for what they are fed.
 */
export function compiledTokenAttentionParts(backend: TensorflowBackend): AttentionParts {
  const { run, reshape, concat, ints, columns } = dynamicOperations(backend), { read, assign } = variables(backend);
  const attributes = [T, attr.type("Tindices", DataType.int32)];
  return {
    ...compiledAttentionParts(backend),
    writer({ caches, positions }, group) {
      const place = concat([ints(0, 0), positions, ints(0)]);
      return (layer, ...update) => {
        const cache = caches[group][layer] as tf.Tensor4D, [, heads, , size] = cache.shape;
        const slice = reshape(tf.concat(update, 1), [1, heads, 1, size]);
        const written = run<tf.Tensor4D>("XlaDynamicUpdateSlice", attributes, [read(cache), slice, place]);
        assign(cache, written);
        const [keys, values] = columns(written, 2);
        return { keys, values };
      };
    },
  };
}
