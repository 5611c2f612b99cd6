/** Models from weights: each tensor is read straight into the backend's memory and handed to its layer. */

import type * as tf from "@tensorflow/tfjs";
import { type Backend, useBackend } from "../backend.ts";
import type { Activation, Dtype, Linear } from "../ops.ts";
import { type GPT2Config, readConfig } from "./config.ts";
import { storedPlan } from "../parallelism.ts";
import { Block, CausalSelfAttention, LayerNorm, Mlp } from "./layers.ts";
import { GPT2 } from "./model.ts";
import { checkpointWeights, randomWeights, weightShapes, type WeightSource } from "./weights.ts";

/** How a model is loaded. */
export interface LoadOptions {
  /** Where it runs. Default: what `useBackend()` chooses. */
  backend?: Backend;
  /** Element type of the linear layers' weights. Default `float32`. */
  dtype?: Dtype;
}

/**
 * Loads the model in a folder with `config.json` and its weights as safetensors.
 *
 * Throws an error that names the file when one is missing, damaged, or not a GPT-2's.
 */
export async function loadGPT2(folder: string, options: LoadOptions = {}): Promise<GPT2> {
  const config = await readConfig(folder);
  using weights = await checkpointWeights(folder, config);
  return await buildGPT2(config, weights, options);
}

/** Loads models under the name that Hugging Face's transformers gives to this. */
export const AutoModelForCausalLM: { fromPretrained: typeof loadGPT2 } = { fromPretrained: loadGPT2 };

/** A model with random weights: for timing, which does not depend on them, and for tests. */
export async function randomGPT2(
  config: GPT2Config,
  options: LoadOptions & { seed?: number } = {},
): Promise<GPT2> {
  using weights = randomWeights(options.seed ?? 0);
  return await buildGPT2(config, weights, options);
}

async function buildGPT2(config: GPT2Config, source: WeightSource, options: LoadOptions): Promise<GPT2> {
  const { backend = await useBackend(), dtype = "float32" } = options;
  if (!backend.dtypes.includes(dtype)) {
    throw new RangeError(`Cannot use ${dtype} on the ${backend.name} backend: it has ${backend.dtypes.join(", ")}.`);
  }
  const loader = new Loader(config, source, backend, dtype);
  try {
    const wte = await loader.weight<tf.Tensor2D>("wte.weight");
    const wpe = await loader.weight<tf.Tensor2D>("wpe.weight");
    const h: Block[] = [];
    for (let i = 0; i < config.n_layer; i++) h.push(await loader.block(i));
    const ln_f = await loader.layerNorm("ln_f");
    const model = new GPT2(config, backend, dtype, { wte, wpe, h, ln_f, head: loader.head(wte) }, loader.loaded);
    model.plan = await storedPlan(model) ?? [];
    return model;
  } catch (error) {
    for (const part of loader.loaded) part.dispose();
    throw error;
  }
}

/** Makes layers by their checkpoint names and remembers what is to be freed. */
class Loader {
  readonly loaded: { dispose(): void }[] = [];
  readonly #shapes: Map<string, number[]>;

  constructor(
    private readonly config: GPT2Config,
    private readonly source: WeightSource,
    private readonly backend: Backend,
    private readonly dtype: Dtype,
  ) {
    this.#shapes = weightShapes(config);
  }

  async weight<T extends tf.Tensor>(name: string, change?: (values: Float32Array) => void): Promise<T> {
    const shape = this.#shapes.get(name)!;
    const tensor = await this.backend.createTensor(shape, async (values) => {
      await this.source.fill(name, shape, values);
      change?.(values);
    });
    return this.#own(tensor as T);
  }

  async linear(name: string, activation: Activation, change?: (values: Float32Array) => void): Promise<Linear> {
    const weight = await this.weight<tf.Tensor2D>(`${name}.weight`, change);
    const bias = await this.weight<tf.Tensor1D>(`${name}.bias`, change);
    return this.#own(this.backend.ops.linear(weight, bias, { name, activation, dtype: this.dtype }));
  }

  head(wte: tf.Tensor2D): Linear {
    return this.#own(this.backend.ops.head(wte, { name: "head", activation: "none", dtype: this.dtype }));
  }

  async layerNorm(name: string): Promise<LayerNorm> {
    const weight = await this.weight<tf.Tensor1D>(`${name}.weight`);
    const bias = await this.weight<tf.Tensor1D>(`${name}.bias`);
    return new LayerNorm(this.backend.ops, weight, bias, this.config.layer_norm_epsilon);
  }

  async block(i: number): Promise<Block> {
    const ln_1 = await this.layerNorm(`h.${i}.ln_1`);
    const c_attn = await this.linear(`h.${i}.attn.c_attn`, "none", (values) => scaleQuery(values, this.config, i));
    const attn_c_proj = await this.linear(`h.${i}.attn.c_proj`, "none");
    const ln_2 = await this.layerNorm(`h.${i}.ln_2`);
    const c_fc = await this.linear(`h.${i}.mlp.c_fc`, "gelu_new");
    const mlp_c_proj = await this.linear(`h.${i}.mlp.c_proj`, "none");
    const attn = new CausalSelfAttention(this.backend.ops, c_attn, attn_c_proj, this.config.n_head);
    return new Block(this.backend.ops, ln_1, attn, ln_2, new Mlp(c_fc, mlp_c_proj));
  }

  #own<T extends { dispose(): void }>(part: T): T {
    this.loaded.push(part);
    return part;
  }
}

/**
 * Puts the factor of the attention scores, 1/√(D/H), into the weights and the bias that make the query: the first D of
 * the 3·D columns of `c_attn`. The same sums, one operation less per layer and step.
 */
function scaleQuery(values: Float32Array, config: GPT2Config, layer: number): void {
  const { n_embd: D, n_head: H, scale_attn_weights, scale_attn_by_inverse_layer_idx } = config;
  const scale = (scale_attn_weights ? 1 / Math.sqrt(D / H) : 1) / (scale_attn_by_inverse_layer_idx ? layer + 1 : 1);
  for (let row = 0; row < values.length; row += 3 * D) {
    for (let column = 0; column < D; column++) values[row + column] *= scale;
  }
}
