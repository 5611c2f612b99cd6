/** What the layers of the model know of the step that they are in: its tokens, and the rows' cache. */

import * as tf from "@tensorflow/tfjs";
import type { Attention, Ops, RowPadding, StepInputs, WeightKind } from "../backend/ops.ts";

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
  readonly #padding: RowPadding;

  /** The step that feeds `inputs` to layers with weights of this type and number. */
  constructor(private readonly ops: Ops, readonly inputs: StepInputs, weights: WeightKind) {
    const { buckets, tokens: { size } } = inputs;
    this.written = buckets.map(({ caches }) => caches.map(() => []));
    this.#padding = ops.rowPadding(inputs.tokens, weights);
    this.#attention = buckets[0].rowStarts.map((_, g) => buckets.map((bucket) => ops.attention(bucket, g, size)));
  }

  /** [N, D] -> [N', D]: what the layers are given, with rows of {@link Ops.rowPadding}, if there are any. */
  pad(x: tf.Tensor2D): tf.Tensor2D {
    return this.#padding.add(x);
  }

  /**
   * qkv [N', 3·heads·D/H] of some heads -> [N', heads·D/H]: each token attends to its row's tokens up to itself. Their keys
   * and values are appended to the cache.
   */
  attend(qkv: tf.Tensor2D, layer: number, group: number): tf.Tensor2D {
    const { ops, inputs: { buckets } } = this, attention = this.#attention[group];
    const parts = ops.splitByBucket(this.#padding.remove(qkv), buckets).map((part, i) => {
      const { attended, made } = attention[i].apply(part, layer);
      if (!ops.writesInPlace) this.written[i][group].push(...made.map((cache) => tf.keep(cache)));
      return attended;
    });
    return this.pad(ops.joinBuckets(parts));
  }

  /** x [N', D] -> [M, V] in parts: the logits that `head` makes of the tokens that they are wanted after. */
  logitsOfWanted(x: tf.Tensor2D, head: (x: tf.Tensor2D) => tf.Tensor2D[]): tf.Tensor2D[] {
    const { ops, inputs: { wanted } } = this;
    return wanted ? head(ops.pick(x, wanted)) : head(x).map((logits) => this.#padding.remove(logits));
  }
}
