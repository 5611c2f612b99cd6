/**
 * GPT-2's layers, after the papers: Radford et al. 2019, section 2.3, on Radford et al. 2018 and Vaswani et al. 2017.
 * Names are the checkpoint's. Letters: N tokens of a step, H heads, D model width.
 *
 * Attention is a sum over heads, and an MLP is a sum over hidden units: so both are divided into groups, one for each core,
 * that read the same x and add to it independently (tensor parallelism, Shoeybi et al. 2019, section 3). With one group
 * these are the layers of the paper.
 */

import type * as tf from "@tensorflow/tfjs";
import { tidy } from "@tensorflow/tfjs";
import type { Linear, Norm, Ops } from "../backend/ops.ts";
import type { StepContext } from "./step_context.ts";

/**
 * The residual stream: tensors [N, D] whose sum it is. They are added where the sum is needed, once for each group,
 * because adding twice is quicker than waiting for another core to do it.
 */
export type Residual = readonly tf.Tensor2D[];

/** Each token's vector to mean 0 and variance 1, then a gain and a bias (Ba et al. 2016). */
export class LayerNorm implements Norm {
  /** From its weights [D]; `epsilon` is added to the variance. */
  constructor(
    private readonly ops: Ops,
    readonly weight: tf.Tensor1D,
    readonly bias: tf.Tensor1D,
    readonly epsilon: number,
  ) {}

  /** [N, D] -> [N, D]. */
  apply(x: tf.Tensor2D): tf.Tensor2D {
    return this.ops.layerNorm(x, this.weight, this.bias, this.epsilon);
  }
}

/**
 * Some heads of masked self-attention (checkpoint prefix `attn`). The query weights hold the factor 1/√(D/H) already.
 */
export class HeadGroup {
  /** `c_attn` makes query, key and value of these heads, [D, 3·heads·D/H]; `c_proj` mixes them, [heads·D/H, D]. */
  constructor(private readonly c_attn: Linear, private readonly c_proj: Linear) {}

  /** [N, D] -> [N, D]. Each token attends to its row's tokens in layer `layer` of the cache, itself included. */
  apply(x: tf.Tensor2D, step: StepContext, layer: number, group: number): tf.Tensor2D {
    const qkv = this.c_attn.apply(x); //                  [N, 3·heads·D/H]
    const attended = step.attend(qkv, layer, group); //   [N, heads·D/H]
    return this.c_proj.apply(attended);
  }
}

/** Some hidden units of the MLP: two linear layers with a GELU in between, which `c_fc` applies (checkpoint prefix `mlp`). */
export class HiddenGroup {
  /** `c_fc` goes from D to these units, `c_proj` from them back to D. */
  constructor(private readonly ops: Ops, private readonly c_fc: Linear, private readonly c_proj: Linear) {}

  /** [N, D] -> [N, D]. */
  apply(x: tf.Tensor2D): tf.Tensor2D {
    return this.ops.chain(this.c_fc, this.c_proj, x);
  }
}

/** One block: attention, then MLP, each on a normalised copy and added back (checkpoint prefix `h.i`). */
export class Block {
  /** The block's four parts; without layer norms where the linear layers after them hold them already. */
  constructor(
    private readonly ops: Ops,
    private readonly ln_1: LayerNorm | undefined,
    private readonly attn: readonly HeadGroup[],
    private readonly ln_2: LayerNorm | undefined,
    private readonly mlp: readonly HiddenGroup[],
  ) {}

  /** [N, D] -> [N, D]. */
  apply(x: Residual, step: StepContext, layer: number): Residual {
    const { ops, ln_1, attn, ln_2, mlp } = this;
    x = tidy("attn", () => addTo(x, ops, attn, (head, x, i) => head.apply(ln_1?.apply(x) ?? x, step, layer, i)));
    return tidy("mlp", () => addTo(x, ops, mlp, (hidden, x) => hidden.apply(ln_2?.apply(x) ?? x)));
  }
}

/** The sum of the residual stream. */
export function sumOf(x: Residual, ops: Ops): tf.Tensor2D {
  return x.reduce((a, b) => ops.add(a, b));
}

/** The residual stream with what each group makes of it. */
function addTo<G>(
  x: Residual,
  ops: Ops,
  groups: readonly G[],
  apply: (group: G, x: tf.Tensor2D, i: number) => tf.Tensor2D,
): tf.Tensor2D[] {
  const done = groups.map((group, i) =>
    tidy(`group.${i}`, () => {
      const sum = sumOf(x, ops);
      return [sum, apply(group, sum, i)];
    })
  );
  return [done[0][0], ...done.map(([, change]) => change)];
}
