/**
 * GPT-2's layers, after the papers: Radford et al. 2019, section 2.3, on Radford et al. 2018 and Vaswani et al. 2017.
 * Names are the checkpoint's. Letters: B batch, T new tokens, S cache slots, H heads, D model width.
 */

import type * as tf from "@tensorflow/tfjs";
import { tidy } from "@tensorflow/tfjs";
import type { Linear, Ops } from "../ops.ts";
import type { CacheView } from "./cache_view.ts";

/** Each token's vector to mean 0 and variance 1, then a gain and a bias (Ba et al. 2016). */
export class LayerNorm {
  /** From its weights [D]; `epsilon` is added to the variance. */
  constructor(
    private readonly ops: Ops,
    private readonly weight: tf.Tensor1D,
    private readonly bias: tf.Tensor1D,
    private readonly epsilon: number,
  ) {}

  /** [B·T, D] -> [B·T, D]. */
  apply(x: tf.Tensor2D): tf.Tensor2D {
    return this.ops.layerNorm(x, this.weight, this.bias, this.epsilon);
  }
}

/** Masked self-attention (checkpoint prefix `attn`). The query weights hold the factor 1/√(D/H) already. */
export class CausalSelfAttention {
  /** `c_attn` makes query, key and value, `c_proj` mixes the heads. */
  constructor(
    private readonly ops: Ops,
    private readonly c_attn: Linear,
    private readonly c_proj: Linear,
    private readonly heads: number,
  ) {}

  /**
   * [B·T, D] -> [B·T, D]. Appends T keys and values per row to layer `layer` of the cache and attends to all of it.
   * `ids` [B, T] says what B and T are. Padding gets finite, meaningless values: no real token attends to it.
   */
  apply(x: tf.Tensor2D, ids: tf.Tensor2D, cache: CacheView, layer: number): tf.Tensor2D {
    const [query, key, value] = this.ops.splitHeads(this.c_attn.apply(x), ids, this.heads); // each [B, H, T, D/H]
    const { keys, values } = cache.append(layer, key, value); //                               each [B, H, S, D/H]
    const attended = this.ops.attend(query, keys, values, cache.mask); //                      [B, H, T, D/H]
    return this.c_proj.apply(this.ops.mergeHeads(attended));
  }
}

/** Two linear layers with a GELU in between; `c_fc` applies it (checkpoint prefix `mlp`). */
export class Mlp {
  /** `c_fc` goes from D to 4·D and has the GELU, `c_proj` goes back to D. */
  constructor(private readonly c_fc: Linear, private readonly c_proj: Linear) {}

  /** [B·T, D] -> [B·T, D], by way of 4·D. */
  apply(x: tf.Tensor2D): tf.Tensor2D {
    return this.c_proj.apply(this.c_fc.apply(x));
  }
}

/** One block: attention, then MLP, each on a normalised copy and added back (checkpoint prefix `h.i`). */
export class Block {
  /** The block's four parts. */
  constructor(
    private readonly ops: Ops,
    private readonly ln_1: LayerNorm,
    private readonly attn: CausalSelfAttention,
    private readonly ln_2: LayerNorm,
    private readonly mlp: Mlp,
  ) {}

  /** [B·T, D] -> [B·T, D]. */
  apply(x: tf.Tensor2D, ids: tf.Tensor2D, cache: CacheView, layer: number): tf.Tensor2D {
    x = tidy("attn", () => this.ops.add(x, this.attn.apply(this.ln_1.apply(x), ids, cache, layer)));
    return tidy("mlp", () => this.ops.add(x, this.mlp.apply(this.ln_2.apply(x))));
  }
}
