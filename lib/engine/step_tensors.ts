/** What goes into a step of the model, as tensors in a row: so a captured step takes it. */

import * as tf from "@tensorflow/tfjs";
import type { CacheTensors } from "../gpt2/cache_view.ts";
import type { Lane } from "./kv_cache.ts";
import type { Ops, StepInputs } from "../backend/ops.ts";

/** `tokens` [B, T] for the slots from `first` on. Of all the tensors, `own` are the caller's to free, the rest the cache's. */
export function toTensors(
  ops: Ops,
  lane: Lane,
  first: number,
  tokens: readonly (readonly number[])[],
): { all: tf.Tensor[]; own: tf.Tensor[] } {
  const B = tokens.length, T = tokens[0].length, { padding, slots, rowStarts, keys, values } = lane.tensors;
  const newSlots = tokens[0].map((_, i) => first + i);
  if (ops.unpackInputs) {
    const rows = [...tokens.map((row, i) => [...row, lane.padding[i]]), [...newSlots, 0]];
    const packed = tf.tensor2d(rows.flat(), [B + 1, T + 1], "int32");
    return { all: [packed, ...keys, ...values], own: [packed] };
  }
  const own = [
    tf.tensor2d(tokens.flat(), [B, T], "int32"),
    tf.tensor2d(lane.positionIds(first, T).flat(), [B, T], "int32"),
    tf.tensor2d(newSlots, [T, 1], "int32"),
  ];
  return { all: [...own, padding, slots, ...rowStarts, ...keys, ...values], own };
}

/** Undoes {@link toTensors}, for a model of so many layers. */
export function fromTensors(ops: Ops, tensors: readonly tf.Tensor[], layers: number): StepInputs {
  if (ops.unpackInputs) {
    const [packed, ...rest] = tensors;
    const caches = halves(rest as tf.Tensor4D[]);
    const { cache, ...inputs } = ops.unpackInputs(packed as tf.Tensor2D, caches.keys[0]);
    return { ...inputs, cache: { ...cache, ...caches } };
  }
  const [tokens, positions, newSlots, padding, slots, ...rest] = tensors;
  const groups = rest.length / (1 + 2 * layers);
  return {
    tokens: tokens as tf.Tensor2D,
    positions: positions as tf.Tensor2D,
    newSlots: newSlots as tf.Tensor2D,
    cache: {
      padding: padding as tf.Tensor4D,
      slots: slots as tf.Tensor1D,
      rowStarts: rest.slice(0, groups) as tf.Tensor3D[],
      ...halves(rest.slice(groups) as tf.Tensor4D[]),
    },
  };
}

/** Keys and then as many values, apart. */
export function halves(both: readonly tf.Tensor4D[]): Pick<CacheTensors, "keys" | "values"> {
  const middle = both.length / 2;
  return { keys: both.slice(0, middle), values: both.slice(middle) };
}
