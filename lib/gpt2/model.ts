/**
 * GPT-2, top to bottom: embed, twelve blocks (or however many), normalise, and compare with every word.
 *
 * One token's way through the model: `forward` here, `Block` in layers.ts, the operations in ../ops.ts.
 */

import * as tf from "@tensorflow/tfjs";
import type { Backend } from "../backend/types.ts";
import type { DividedLinear, Dtype } from "../backend/ops.ts";
import type { GPT2Config } from "./config.ts";
import { Lifetime } from "../util/lifetime.ts";
import { type Block, type LayerNorm, type Residual, sumOf } from "./layers.ts";
import type { StepContext } from "./step_context.ts";

/** The layers of a GPT-2, under the checkpoint's names. */
export interface Layers {
  /** Token embedding, [V, D]. */
  wte: tf.Tensor2D;
  /** Position embedding, [P, D]. */
  wpe: tf.Tensor2D;
  /** The blocks. */
  h: readonly Block[];
  /** The last layer norm. */
  ln_f: LayerNorm;
  /** [N, D] -> [N, V]: the token embedding once more, transposed. */
  head: DividedLinear;
}

/** A GPT-2 language model. Made by the functions in load.ts; free it with `using` or `[Symbol.dispose]()`. */
export class GPT2 {
  /** From its layers; `owned` is what to free with the model. */
  constructor(
    /** Its sizes. */
    readonly config: GPT2Config,
    /** Where it runs. */
    readonly backend: Backend,
    /** Element type of the linear layers' weights. */
    readonly dtype: Dtype,
    private readonly layers: Layers,
    /** How many heads are in each group of every block; the cache is laid out alike. */
    readonly headGroups: readonly number[],
    private readonly owned: { dispose(): void }[],
  ) {}

  /**
   * N tokens of some rows -> the logits after those that they are wanted after, [M, V], in one or more parts side by side.
   * Appends their keys and values to the rows' cache.
   */
  forward(step: StepContext): tf.Tensor2D[] {
    const { wte, wpe, h, ln_f, head } = this.layers, { ops } = this.backend, { tokens, positions } = step.inputs;
    return tf.tidy(() => {
      const embed = () => step.pad(ops.add(ops.embed(wte, tokens), ops.embed(wpe, positions)));
      let x: Residual = [tf.tidy("embed", embed)]; // [N, D], or padded
      for (const [i, block] of h.entries()) x = tf.tidy(`h.${i}`, () => [...block.apply(x, step, i)]);
      return tf.tidy("head", () => step.logitsOfWanted(sumOf(x, ops), (wanted) => head.apply(ln_f.apply(wanted))));
    });
  }

  /** The bytes of a number in its caches. */
  get cachedBytes(): number {
    return this.backend.ops.cachedBytes(this.dtype);
  }

  /** Frees `part` with the model: what is made of its weights, and ends with them. */
  own(part: { dispose(): void }): void {
    this.owned.push(part);
  }

  /** Who uses the weights, and what was made of them, until when. */
  readonly lifetime = new Lifetime("this model", () => {
    for (const part of this.owned.splice(0).reverse()) part.dispose();
  });

  /** Frees them, once the steps that are under way have ended; every later one is refused. */
  [Symbol.dispose](): void {
    this.lifetime.end();
  }
}
