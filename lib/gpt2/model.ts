/**
 * GPT-2, top to bottom: embed, twelve blocks (or however many), normalise, and compare with every word.
 *
 * One token's way through the model: `forward` here, `Block` in layers.ts, the operations in ../ops.ts.
 */

import * as tf from "@tensorflow/tfjs";
import type { Backend, CapturedStep } from "../backend/types.ts";
import type { Dtype, Head } from "../backend/ops.ts";
import type { GPT2Config } from "./config.ts";
import type { Plan } from "../engine/parallelism.ts";
import type { CacheView } from "./cache_view.ts";
import { KvCache } from "../engine/kv_cache.ts";
import type { Parallelism } from "../backend/types.ts";
import { Lifetime } from "../util/lifetime.ts";
import { type Block, type LayerNorm, type Residual, sumOf } from "./layers.ts";

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
  head: Head;
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
    private readonly headGroups: readonly number[],
    private readonly owned: readonly { dispose(): void }[],
  ) {}

  /** How batches are best spread over the processor; see ../parallelism.ts. Empty: by a guess. */
  plan: Plan = [];
  /** Steps of this model that the backend keeps as one function each, by kind; see ../step.ts. They use its weights. */
  readonly capturedSteps = new Map<string, CapturedStep>();

  /** An empty cache of this model's, for rows with so much padding on the left and at first `capacity` slots each. */
  allocateCache(padding: readonly number[], capacity: number, parallelism?: Parallelism): KvCache {
    return KvCache.allocate(this.config, padding, capacity, {
      parallelism,
      headGroups: this.headGroups,
      ops: this.backend.ops,
    });
  }

  /**
   * T tokens of each of B rows: inputIds [B, T], positionIds [B, T] -> the logits after the last of them, [B, V],
   * in one or more parts side by side. Appends their keys and values to the cache.
   */
  forward(inputIds: tf.Tensor2D, positionIds: tf.Tensor2D, cache: CacheView): tf.Tensor2D[] {
    const { wte, wpe, h, ln_f, head } = this.layers, { ops } = this.backend;
    return tf.tidy(() => {
      const embed = () => ops.add(ops.embed(wte, inputIds), ops.embed(wpe, positionIds));
      let x: Residual = [tf.tidy("embed", embed)]; // [B·T, D]
      for (const [i, block] of h.entries()) x = tf.tidy(`h.${i}`, () => [...block.apply(x, inputIds, cache, i)]);
      return tf.tidy("head", () => head.apply(ln_f.apply(ops.lastToken(sumOf(x, ops), inputIds))));
    });
  }

  /** Who uses the weights, until when. */
  readonly lifetime = new Lifetime("this model", () => {
    for (const part of [...this.capturedSteps.values(), ...this.owned]) part.dispose();
    this.capturedSteps.clear();
  });

  /** Frees the weights, once the step that is under way has ended; every later one is refused. */
  [Symbol.dispose](): void {
    this.lifetime.end();
  }
}
