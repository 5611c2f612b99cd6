/** The shape of a GPT-2: read from a folder's `config.json`, or one of the published sizes. */

/** What the model needs to know of `config.json`, under the names used there. */
export interface GPT2Config {
  /** Tokens in the vocabulary. */
  readonly vocab_size: number;
  /** The most tokens a row can hold, prompt and answer together. */
  readonly n_positions: number;
  /** Model width. */
  readonly n_embd: number;
  /** Blocks. */
  readonly n_layer: number;
  /** Attention heads of a block; they share `n_embd`. */
  readonly n_head: number;
  /** Width inside the MLP; 4 × `n_embd` unless the file says otherwise. */
  readonly n_inner: number;
  /** Added to the variance before its square root is divided by. */
  readonly layer_norm_epsilon: number;
  /** The token that ends a text, or null if the vocabulary has none. */
  readonly eos_token_id: number | null;
  /** The token that starts a text, or null if the vocabulary has none. */
  readonly bos_token_id: number | null;
  /** Attention scores are divided by the square root of a head's width. */
  readonly scale_attn_weights: boolean;
  /** Attention scores of layer i are also divided by i + 1. */
  readonly scale_attn_by_inverse_layer_idx: boolean;
}

const DEFAULTS: GPT2Config = {
  vocab_size: 50257,
  n_positions: 1024,
  n_embd: 768,
  n_layer: 12,
  n_head: 12,
  n_inner: 4 * 768,
  layer_norm_epsilon: 1e-5,
  eos_token_id: 50256,
  bos_token_id: 50256,
  scale_attn_weights: true,
  scale_attn_by_inverse_layer_idx: false,
};

/** The published sizes of GPT-2: layers, heads, width. They differ in nothing else. */
export const GPT2_SIZES = {
  "distilgpt2": { n_layer: 6, n_head: 12, n_embd: 768 },
  "gpt2": { n_layer: 12, n_head: 12, n_embd: 768 },
  "gpt2-medium": { n_layer: 24, n_head: 16, n_embd: 1024 },
  "gpt2-large": { n_layer: 36, n_head: 20, n_embd: 1280 },
  "gpt2-xl": { n_layer: 48, n_head: 25, n_embd: 1600 },
} as const;

/** The name of a published size. */
export type GPT2Size = keyof typeof GPT2_SIZES;

/**
 * The configuration of a published size, for a model made with random weights.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { gpt2Config, parameterCount } from "./config.ts";
 *
 * assert.equal(parameterCount(gpt2Config("gpt2")), 124_439_808);
 * ```
 */
export function gpt2Config(size: GPT2Size): GPT2Config {
  if (!Object.hasOwn(GPT2_SIZES, size)) {
    throw new RangeError(`Cannot make "${size}": the sizes are ${Object.keys(GPT2_SIZES).join(", ")}.`);
  }
  return { ...DEFAULTS, ...GPT2_SIZES[size], n_inner: 4 * GPT2_SIZES[size].n_embd };
}

/**
 * The number of weights. The token embedding, which is also the last layer, counts once.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { gpt2Config, parameterCount } from "./config.ts";
 *
 * assert.equal(parameterCount(gpt2Config("gpt2-medium")), 354_823_168);
 * ```
 */
export function parameterCount({ vocab_size, n_positions, n_embd, n_inner, n_layer }: GPT2Config): number {
  const linear = (inputs: number, outputs: number) => (inputs + 1) * outputs;
  const layerNorm = 2 * n_embd;
  const attention = linear(n_embd, 3 * n_embd) + linear(n_embd, n_embd);
  const mlp = linear(n_embd, n_inner) + linear(n_inner, n_embd);
  return (vocab_size + n_positions) * n_embd + n_layer * (2 * layerNorm + attention + mlp) + layerNorm;
}

/**
 * Reads a parsed `config.json`. What is missing takes Hugging Face's default; what this library cannot compute exactly
 * is refused, with `source` in the message. Of the rest, `reorder_and_upcast_attn` changes nothing in float32, and
 * dropout is for training.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseConfig } from "./config.ts";
 *
 * const config = parseConfig({ model_type: "gpt2", n_layer: 2, n_embd: 64, n_head: 4 }, "config.json");
 * assert.equal(config.n_inner, 256);
 * ```
 */
export function parseConfig(json: unknown, source: string): GPT2Config {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new TypeError(`Cannot use ${source}: it holds ${show(json)}, not an object of settings.`);
  }
  const fields = json as Record<string, unknown>;
  const refuse = (name: string, wanted: string): never => {
    const value = fields[name] === undefined ? "missing" : show(fields[name]);
    throw new RangeError(`Cannot use ${source}: ${name} is ${value}. ${wanted}`);
  };
  const only = (name: string, fallback: unknown, ...supported: unknown[]) => {
    if (!supported.includes(fields[name] ?? fallback)) {
      refuse(name, `This library runs GPT-2 models, with ${name} ${supported.map(show).join(" or ")}.`);
    }
  };
  only("model_type", undefined, "gpt2");
  only("activation_function", "gelu_new", "gelu_new", "gelu_pytorch_tanh"); // two names of one function
  only("tie_word_embeddings", true, true);
  only("add_cross_attention", false, false);

  const size = (name: string, fallback: number, most = MAX_SIZE): number => {
    const value = fields[name] ?? fallback;
    if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > most) {
      refuse(name, `Use a whole number from 1 to ${most}.`);
    }
    return value as number;
  };
  const flag = (name: "scale_attn_weights" | "scale_attn_by_inverse_layer_idx"): boolean => {
    const value = fields[name] ?? DEFAULTS[name];
    return typeof value === "boolean" ? value : refuse(name, "Use true or false.");
  };
  const vocab_size = size("vocab_size", DEFAULTS.vocab_size);
  // Small models often keep GPT-2's 50256 here. An id outside the vocabulary never comes: the same as none.
  const token = (name: "eos_token_id" | "bos_token_id"): number | null => {
    const value = fields[name] === undefined ? DEFAULTS[name] : fields[name];
    if (value !== null && !Number.isInteger(value)) refuse(name, "Use one token id, or null for none.");
    return value !== null && (value as number) >= 0 && (value as number) < vocab_size ? value as number : null;
  };
  const n_embd = size("n_embd", DEFAULTS.n_embd);
  const n_head = size("n_head", DEFAULTS.n_head);
  if (n_embd % n_head !== 0) refuse("n_head", `Use a number that divides n_embd, ${n_embd}.`);
  const layer_norm_epsilon = fields.layer_norm_epsilon ?? DEFAULTS.layer_norm_epsilon;
  if (typeof layer_norm_epsilon !== "number" || !(layer_norm_epsilon > 0 && layer_norm_epsilon < 1)) {
    refuse("layer_norm_epsilon", "Use a number between 0 and 1, such as 1e-5.");
  }

  return {
    vocab_size,
    n_positions: fields.n_positions == null ? size("n_ctx", DEFAULTS.n_positions) : size("n_positions", 0),
    n_embd,
    n_layer: size("n_layer", DEFAULTS.n_layer, MAX_LAYERS),
    n_head,
    n_inner: size("n_inner", 4 * n_embd),
    layer_norm_epsilon: layer_norm_epsilon as number,
    eos_token_id: token("eos_token_id"),
    bos_token_id: token("bos_token_id"),
    scale_attn_weights: flag("scale_attn_weights"),
    scale_attn_by_inverse_layer_idx: flag("scale_attn_by_inverse_layer_idx"),
  };
}

/** Larger than any size of any GPT-2, small enough that a mistyped one is caught here. */
const MAX_SIZE = 10_000_000;

/** As {@link MAX_SIZE}, for what costs a dozen names each before any weight is looked at. */
const MAX_LAYERS = 1000;

/** A value for a message, shortened. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
