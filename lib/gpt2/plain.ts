/**
 * GPT-2 as the papers read: every token of every row at once, no cache, one tfjs operation a formula.
 *
 * What may see what, and which position a token has, is for the caller to say, and the attention weights come back with
 * the logits: for looking inside, and for checking the engine (model.ts) against. Each call computes everything again.
 * Letters: B batch, T tokens, H heads, D model width, V vocabulary.
 */

import * as tf from "@tensorflow/tfjs";
import { onBackend } from "../backend/current.ts";
import { useBackend } from "../backend/select.ts";
import { geluNew, plainOps } from "../backend/plain.ts";
import { Lifetime } from "../util/lifetime.ts";
import type { GPT2Config } from "./config.ts";
import { readConfig } from "./config_file.ts";
import { checkpointWeights, weightShapes, type WeightSource } from "./weights.ts";

/** A batch, and all that there is to say about it. */
export interface PlainInputs {
  /** [B, T] */
  inputIds: readonly (readonly number[])[];
  /** [B, T]; what is below 0, as of padding, looks up position 0. */
  positionIds: readonly (readonly number[])[];
  /**
   * [B, T, T]: what is added to the score of each query (second axis) for each key (third): 0 if it may be seen, a large
   * negative number if not.
   */
  mask: readonly (readonly (readonly number[])[])[];
}

/** What comes out of the model. */
export interface PlainOutputs {
  /** [B][T], each with V numbers: of every token, the scores of what may follow. */
  logits: Float32Array[][];
  /** [layer][B][H][T][T]: how each query (fourth) spreads its attention over the keys (fifth). */
  attentions: number[][][][][];
}

/**
 * A GPT-2 that hides nothing. Free it with `using` or `[Symbol.dispose]()`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { PlainGPT2 } from "./plain.ts";
 *
 * using model = await PlainGPT2.fromPretrained("models/small");
 * const mask = [[[0, -1e9], [0, 0]]]; // the first of two tokens does not see the second
 * const { attentions } = await model.forward({ inputIds: [[2061, 2058]], positionIds: [[0, 1]], mask });
 * assert.equal(attentions[0][0][0][0][1], 0); // layer 0, row 0, head 0, from the first to the second
 * ```
 */
export class PlainGPT2 implements Disposable {
  private constructor(
    /** Its sizes. */
    readonly config: GPT2Config,
    private readonly backend: { readonly name: string },
    private readonly weights: ReadonlyMap<string, tf.Tensor>,
  ) {}

  /** Loads the model in a folder, onto tfjs's current backend or the best there is. */
  static async fromPretrained(folder: string): Promise<PlainGPT2> {
    if (!tf.engine().backendName) await useBackend();
    const backend = { name: tf.getBackend() };
    const config = await readConfig(folder);
    using source = await checkpointWeights(folder, config);
    return new PlainGPT2(config, backend, await readAll(source, config, backend));
  }

  /** The whole batch in one go. */
  async forward({ inputIds, positionIds, mask }: PlainInputs): Promise<PlainOutputs> {
    using _ = this.#lifetime.use();
    const B = inputIds.length, T = inputIds[0].length, { n_layer, vocab_size: V } = this.config;
    const [logits, ...attentions] = onBackend(this.backend, () =>
      tf.tidy(() => {
        const added = tf.expandDims(tf.tensor3d(mask.flat(2) as number[], [B, T, T]), 1) as tf.Tensor4D; // [B, 1, T, T]
        const positions = positionIds.flat().map((position) => Math.max(0, position));
        let x = tf.add(this.#embed("wte", inputIds.flat()), this.#embed("wpe", positions)); // [B·T, D]
        const weights: tf.Tensor[] = [];
        for (let i = 0; i < n_layer; i++) {
          const attention = this.#attend(this.#layerNorm(x, `h.${i}.ln_1`), added, i);
          x = tf.add(x, attention.output);
          x = tf.add(x, this.#mlp(this.#layerNorm(x, `h.${i}.ln_2`), i));
          weights.push(attention.weights);
        }
        const wte = this.#weight<tf.Tensor2D>("wte.weight");
        return [tf.matMul(this.#layerNorm(x, "ln_f"), wte, false, true), ...weights]; // [B·T, V], [B, H, T, T]…
      }));
    try {
      const flat = await logits.data() as Float32Array;
      const at = (row: number, token: number) => flat.slice((row * T + token) * V, (row * T + token + 1) * V);
      return {
        logits: inputIds.map((ids, row) => ids.map((_, token) => at(row, token))),
        attentions: await Promise.all(attentions.map((weights) => weights.array())) as number[][][][][],
      };
    } finally {
      tf.dispose([logits, ...attentions]);
    }
  }

  readonly #lifetime = new Lifetime("this model", () => tf.dispose([...this.weights.values()]));

  /** Frees the weights, once the calls that are under way have ended; later ones are refused. */
  [Symbol.dispose](): void {
    this.#lifetime.end();
  }

  /** x [B·T, D], mask [B, 1, T, T] -> output [B·T, D] and weights [B, H, T, T]. */
  #attend(x: tf.Tensor, mask: tf.Tensor4D, layer: number): { output: tf.Tensor; weights: tf.Tensor } {
    const [B, , T] = mask.shape, { n_embd: D, n_head: H } = this.config;
    const { scale_attn_weights, scale_attn_by_inverse_layer_idx } = this.config;
    const [query, key, value] = tf.split(this.#linear(x, `h.${layer}.attn.c_attn`), 3, 1)
      .map((part) => tf.transpose(tf.reshape(part, [B, T, H, D / H]), [0, 2, 1, 3])); // each [B, H, T, D/H]
    let scores = tf.matMul(query, key, false, true); // [B, H, T, T]
    if (scale_attn_weights) scores = tf.div(scores, Math.sqrt(D / H));
    if (scale_attn_by_inverse_layer_idx) scores = tf.div(scores, layer + 1);
    const weights = tf.softmax(tf.add(scores, mask));
    const heads = tf.reshape(tf.transpose(tf.matMul(weights, value), [0, 2, 1, 3]), [B * T, D]);
    return { output: this.#linear(heads, `h.${layer}.attn.c_proj`), weights };
  }

  /** [B·T, D] -> [B·T, D], by way of 4·D. */
  #mlp(x: tf.Tensor, layer: number): tf.Tensor {
    return this.#linear(geluNew(this.#linear(x, `h.${layer}.mlp.c_fc`)), `h.${layer}.mlp.c_proj`);
  }

  /** [N, K] -> [N, M]. */
  #linear(x: tf.Tensor, name: string): tf.Tensor2D {
    return tf.add(tf.matMul(x, this.#weight(`${name}.weight`)), this.#weight(`${name}.bias`));
  }

  /** [N, D] -> [N, D]: each token to mean 0 and variance 1, then a gain and a bias. */
  #layerNorm(x: tf.Tensor, name: string): tf.Tensor {
    const [gain, bias] = [this.#weight<tf.Tensor1D>(`${name}.weight`), this.#weight<tf.Tensor1D>(`${name}.bias`)];
    return plainOps.layerNorm(x as tf.Tensor2D, gain, bias, this.config.layer_norm_epsilon);
  }

  /** N ids -> [N, D]. */
  #embed(name: "wte" | "wpe", ids: readonly number[]): tf.Tensor {
    return tf.gather(this.#weight(`${name}.weight`), tf.tensor1d([...ids], "int32"));
  }

  #weight<T extends tf.Tensor = tf.Tensor>(name: string): T {
    return this.weights.get(name) as T;
  }
}

async function readAll(
  source: WeightSource,
  config: GPT2Config,
  backend: { readonly name: string },
): Promise<Map<string, tf.Tensor>> {
  const tensors = new Map<string, tf.Tensor>();
  for (const [name, shape] of weightShapes(config)) {
    const values = new Float32Array(tf.util.sizeFromShape(shape));
    await source.fill(name, values);
    tensors.set(name, onBackend(backend, () => tf.tensor(values, shape)));
  }
  return tensors;
}
