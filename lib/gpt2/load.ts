/** Models from weights: each tensor is read straight into the backend's memory and handed to its layer. */

import * as tf from "@tensorflow/tfjs";
import { onBackend } from "../backend/current.ts";
import type { Backend } from "../backend/types.ts";
import { useBackend } from "../backend/select.ts";
import { type ActivationRanges, cutInt8, type Int8Weight } from "../backend/int8.ts";
import { type Activation, BYTES_PER_WEIGHT, type DividedLinear, type Dtype, type Linear } from "../backend/ops.ts";
import { checkAvailable } from "../backend/memory.ts";
import { type GPT2Config, parameterCount } from "./config.ts";
import { readConfig } from "./config_file.ts";
import { type Range, ranges } from "../util/ranges.ts";
import { cut } from "./groups.ts";
import { Block, HeadGroup, HiddenGroup, LayerNorm } from "./layers.ts";
import { GPT2 } from "./model.ts";
import {
  checkpointWeights,
  layerName,
  quickWeights,
  randomWeights,
  weightShapes,
  type WeightSource,
} from "./weights.ts";

/** Where a model runs, and as what. */
export interface BuildOptions {
  /** Where it runs. Default: what `useBackend()` chooses. */
  backend?: Backend;
  /** Element type of the linear layers' weights. Default `float32`. */
  dtype?: Dtype;
  /**
   * For int8 weights: what the layers take their inputs to range over, where the backend can make use of that. Default: what
   * the file says, and where it says nothing each row's own range.
   */
  activationRanges?: ActivationRanges;
}

/**
 * Loads the model in a folder with `config.json` and its weights as safetensors.
 *
 * Throws an error that names the file when one is missing, damaged, or not a GPT-2's.
 */
export async function loadGPT2(folder: string, options: BuildOptions = {}): Promise<GPT2> {
  const config = await readConfig(folder);
  using weights = await checkpointWeights(folder, config);
  return await buildGPT2(config, weights, options);
}

/**
 * A model with random weights: for timing, which does not depend on them, and for tests. `quick` ones are made where the model runs.
 */
export async function randomGPT2(
  config: GPT2Config,
  options: BuildOptions & { seed?: number; quick?: boolean } = {},
): Promise<GPT2> {
  using weights = (options.quick ? quickWeights : randomWeights)(options.seed ?? 0);
  return await buildGPT2(config, weights, options);
}

/** A model of these sizes with the weights of a source. */
export async function buildGPT2(config: GPT2Config, source: WeightSource, options: BuildOptions): Promise<GPT2> {
  const { dtype = "float32", activationRanges = source.activationRanges } = options;
  const { backend = await useBackend("auto", { dtype }) } = options;
  if (!backend.dtypes.includes(dtype)) {
    throw new RangeError(`Cannot use ${dtype} on the ${backend.name} backend: it has ${backend.dtypes.join(", ")}.`);
  }
  checkWeightMemory(config, backend, dtype);
  const loader = new Loader(config, source, backend, dtype, activationRanges);
  try {
    const wte = await loader.weight<tf.Tensor2D>("wte.weight");
    const wpe = await loader.weight<tf.Tensor2D>("wpe.weight");
    const h: Block[] = [];
    for (let i = 0; i < config.n_layer; i++) h.push(await loader.block(i));
    const ln_f = await loader.layerNorm("ln_f");
    const layers = { wte, wpe, h, ln_f, head: await loader.head(wte) };
    const headGroups = loader.headRanges.map(([start, end]) => end - start);
    return new GPT2(config, backend, dtype, layers, headGroups, loader.loaded);
  } catch (error) {
    for (const part of loader.loaded) part.dispose();
    throw error;
  }
}

/**
 * Throws a RangeError unless there is memory for a model's weights as `dtype`. The embeddings are float32 in any case; then
 * the head, which is the token embedding once more, needs a copy in another dtype.
 */
export function checkWeightMemory(config: GPT2Config, backend: Pick<Backend, "availableMemory">, dtype: Dtype): void {
  const { vocab_size, n_positions, n_embd } = config, head = vocab_size * n_embd, all = parameterCount(config);
  const embeddings = head + n_positions * n_embd, layers = all - embeddings;
  const needed = embeddings * BYTES_PER_WEIGHT.float32 +
    (dtype === "float32" ? layers : layers + head) * BYTES_PER_WEIGHT[dtype];
  checkAvailable(needed, backend, {
    what: `load ${all.toLocaleString("en")} weights as ${dtype}`,
    remedy: "Use a smaller model or a dtype of fewer bits.",
  });
}

/** Makes layers by their checkpoint names and remembers what is to be freed. */
class Loader {
  readonly loaded: { dispose(): void }[] = [];
  /** The heads of each group. */
  readonly headRanges: Range[];
  readonly #shapes: Map<string, number[]>;
  readonly #modelSize: number;

  constructor(
    private readonly config: GPT2Config,
    private readonly source: WeightSource,
    private readonly backend: Backend,
    private readonly dtype: Dtype,
    private readonly activationRanges: ActivationRanges,
  ) {
    this.headRanges = ranges(config.n_head, backend.groups);
    this.#shapes = weightShapes(config);
    this.#modelSize = parameterCount(config);
  }

  async weight<T extends tf.Tensor>(name: string): Promise<T> {
    return this.#own(await this.#read<T>(name));
  }

  async #read<T extends tf.Tensor>(name: string, change?: (values: Float32Array) => void): Promise<T> {
    const shape = this.#shapes.get(name)!;
    if (shape.length === 2 && this.source.make) {
      return onBackend(this.backend, () => this.source.make!([shape[0], shape[1]])) as unknown as T;
    }
    return await this.backend.createTensor(shape, async (values) => {
      await this.source.fill(name, values);
      change?.(values);
    }) as T;
  }

  /**
   * A linear layer of the checkpoint in parts, one for each group; `change` what is stored before it is used. `norm` is a layer norm
   * to make one layer with.
   */
  async linears(
    name: string,
    activation: Activation,
    division: Division,
    { norm, change }: { norm?: LayerNorm; change?: (values: Float32Array) => void } = {},
  ): Promise<Linear[]> {
    const { ops } = this.backend, options = { ...this.#options(name), activation };
    const int8 = await this.#int8(`${name}.weight`);
    if (int8) {
      change?.(int8.scale); // the same for the product
      const bias = await this.#read<tf.Tensor1D>(`${name}.bias`, change);
      return onBackend(this.backend, () => {
        const biases = divideBias(bias, division);
        return divideInt8(int8, division).map((part, g) => this.#own(ops.int8Linear!(part, biases[g], options)));
      });
    }
    const weight = await this.#read<tf.Tensor2D>(`${name}.weight`, change);
    const bias = await this.#read<tf.Tensor1D>(`${name}.bias`, change).catch((error) => {
      weight.dispose();
      throw error;
    });
    return onBackend(this.backend, () => {
      const biases = divideBias(bias, division);
      const make = (part: tf.Tensor2D, bias: tf.Tensor1D) =>
        norm ? ops.normedLinear!(norm, part, bias, options) : ops.linear(part, bias, options);
      return divide(weight, division).map((part, g) => this.#own(make(part, biases[g])));
    });
  }

  async head(wte: tf.Tensor2D): Promise<DividedLinear> {
    const { ops } = this.backend, options = this.#options(layerName("wte.weight"));
    const int8 = await this.#int8("wte.weight");
    const head = onBackend(this.backend, () => int8 ? ops.int8Head!(int8, options) : ops.head(wte, options));
    return this.#own(head);
  }

  /** What all linear layers are made with. */
  #options(name: string) {
    return { name, dtype: this.dtype, modelSize: this.#modelSize, inputRange: this.activationRanges.get(name) };
  }

  /** A weight that the file has as int8, where it is to be int8 too. */
  async #int8(name: string): Promise<Int8Weight | null> {
    return this.dtype === "int8" && this.backend.ops.int8Linear ? await this.source.int8(name) : null;
  }

  async layerNorm(name: string): Promise<LayerNorm> {
    const weight = await this.weight<tf.Tensor1D>(`${name}.weight`);
    const bias = await this.weight<tf.Tensor1D>(`${name}.bias`);
    return new LayerNorm(this.backend.ops, weight, bias, this.config.layer_norm_epsilon);
  }

  async block(i: number): Promise<Block> {
    const ln_1 = await this.#placedNorm(`h.${i}.ln_1`), attn = await this.attention(i, ln_1.within);
    const ln_2 = await this.#placedNorm(`h.${i}.ln_2`), mlp = await this.mlp(i, ln_2.within);
    return new Block(this.backend.ops, ln_1.apart, attn, ln_2.apart, mlp);
  }

  /** A layer norm of a block: within the linear layer after it, where the backend makes one layer of both, or apart from it. */
  async #placedNorm(name: string): Promise<{ within?: LayerNorm; apart?: LayerNorm }> {
    const norm = await this.layerNorm(name);
    return this.backend.ops.normedLinear ? { within: norm } : { apart: norm };
  }

  async attention(i: number, norm?: LayerNorm): Promise<HeadGroup[]> {
    const { n_embd: D, n_head } = this.config, size = D / n_head, h = `h.${i}.attn`;
    const groups = this.headRanges.map(([start, end]) => [start * size, end * size] as const);
    const qkv = groups.map(([start, end]) => [0, D, 2 * D].map((part) => [part + start, part + end] as const));
    const change = (values: Float32Array) => scaleQuery(values, this.config, i);
    const c_attn = await this.linears(`${h}.c_attn`, "none", { axis: 1, groups: qkv }, { norm, change });
    const c_proj = await this.linears(`${h}.c_proj`, "none", { axis: 0, groups: groups.map((range) => [range]) });
    return this.headRanges.map((_, g) => new HeadGroup(c_attn[g], c_proj[g]));
  }

  async mlp(i: number, norm?: LayerNorm): Promise<HiddenGroup[]> {
    const h = `h.${i}.mlp`, unit = 16; // numbers that the processor takes at once
    const groups = ranges(this.config.n_inner, this.headRanges.length, unit).map((range) => [range]);
    const c_fc = await this.linears(`${h}.c_fc`, "gelu_new", { axis: 1, groups }, { norm });
    const c_proj = await this.linears(`${h}.c_proj`, "none", { axis: 0, groups });
    return groups.map((_, g) => new HiddenGroup(this.backend.ops, c_fc[g], c_proj[g]));
  }

  #own<T extends { dispose(): void }>(part: T): T {
    this.loaded.push(part);
    return part;
  }
}

/** What each group gets of a weight [K, M]: some of its inputs (`axis` 0) or of its outputs (1). */
interface Division {
  axis: 0 | 1;
  groups: readonly (readonly Range[])[];
}

/** A weight's parts. Takes the whole over. */
function divide(weight: tf.Tensor2D, { axis, groups }: Division): tf.Tensor2D[] {
  if (groups.length === 1) return [weight];
  const parts = groups.map((ranges) => cut(weight, axis, ranges));
  weight.dispose();
  return parts;
}

/** The same for an int8 weight. Inputs and outputs alike keep the scales that they had. */
function divideInt8(weight: Int8Weight, { axis, groups }: Division): Int8Weight[] {
  return groups.length === 1 ? [weight] : groups.map((ranges) => cutInt8(weight, axis, ranges));
}

/** The bias for each part of a weight: groups of inputs add it once, with the first. Takes the whole over. */
function divideBias(bias: tf.Tensor1D, { axis, groups }: Division): tf.Tensor1D[] {
  if (groups.length === 1) return [bias];
  const parts = groups.map((ranges, g) => {
    if (axis === 1) return cut(bias, 0, ranges);
    return g === 0 ? bias.clone() : tf.fill<tf.Rank.R1>(bias.shape, 0);
  });
  bias.dispose();
  return parts;
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
