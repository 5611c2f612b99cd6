/** What the layers of the model know of the step that they are in: its tokens, and the rows' cache. */

import * as tf from "@tensorflow/tfjs";
import type { Attention, Ops, StepInputs } from "../backend/ops.ts";

/**
 * A step of N tokens on its way through the layers.
 *
 * @internal
 */
export class StepContext {
  /**
   * For each bucket and in it for each group of heads its caches with the step's tokens in them, where the backend makes new ones.
   * They outlive `tf.tidy`.
   */
  readonly written: readonly (readonly tf.Tensor4D[][])[];
  /** By group of heads, then by bucket. */
  readonly #attention: readonly (readonly Attention[])[];

  /** The step that feeds `inputs`. */
  constructor(private readonly ops: Ops, readonly inputs: StepInputs) {
    const { buckets, tokens: { size } } = inputs;
    this.written = buckets.map(({ caches }) => caches.map(() => []));
    this.#attention = buckets[0].rowStarts.map((_, g) => buckets.map((bucket) => ops.attention(bucket, g, size)));
  }

  /**
   * qkv [N, 3·heads·D/H] of some heads -> [N, heads·D/H]: each token attends to its row's tokens up to itself. Their keys
   * and values are appended to the cache.
   */
  attend(qkv: tf.Tensor2D, layer: number, group: number): tf.Tensor2D {
    const { ops, inputs: { buckets } } = this, attention = this.#attention[group];
    const parts = ops.splitByBucket(qkv, buckets).map((part, i) => {
      const { attended, keys, values } = attention[i].apply(part, layer);
      if (!ops.writesInPlace) this.written[i][group].push(tf.keep(keys), tf.keep(values));
      return attended;
    });
    return ops.joinBuckets(parts);
  }

  /** [N, D] -> [M, D]: of the tokens that logits are wanted after. */
  pickWanted(x: tf.Tensor2D): tf.Tensor2D {
    return this.inputs.wanted ? this.ops.pick(x, this.inputs.wanted) : x;
  }
}
