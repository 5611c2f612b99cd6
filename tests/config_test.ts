import assert from "node:assert/strict";
import { GPT2_SIZES, gpt2Config, type GPT2Size, parameterCount, parseConfig } from "../lib/gpt2/config.ts";

const parse = (fields: Record<string, unknown>) => parseConfig({ model_type: "gpt2", ...fields }, "x/config.json");
const refuses = (fields: Record<string, unknown>, message: RegExp) => assert.throws(() => parse(fields), message);

Deno.test("parseConfig() reads the shipped model", async () => {
  const config = parseConfig(
    JSON.parse(await Deno.readTextFile("models/small/config.json")),
    "models/small/config.json",
  );
  assert.deepEqual(config, {
    vocab_size: 50257,
    n_positions: 256,
    n_embd: 192,
    n_layer: 4,
    n_head: 6,
    n_inner: 768,
    layer_norm_epsilon: 1e-5,
    eos_token_id: 50256,
    bos_token_id: 50256,
    scale_attn_weights: true,
    scale_attn_by_inverse_layer_idx: false,
  });
  assert.equal(parameterCount(config), 11_478_336);
});

Deno.test("parseConfig() takes Hugging Face's defaults for what is missing", () => {
  assert.deepEqual(parse({}), gpt2Config("gpt2"));
  assert.deepEqual(parse({ n_inner: null, activation_function: "gelu_pytorch_tanh" }), gpt2Config("gpt2"));
  assert.equal(parse({ n_ctx: 512 }).n_positions, 512);
  assert.equal(parse({ n_ctx: 512, n_positions: 128 }).n_positions, 128);
  assert.equal(parse({ n_embd: 96, n_head: 2 }).n_inner, 384);
  assert.equal(parse({ n_inner: 100 }).n_inner, 100);
});

Deno.test("parseConfig() keeps the switches that change the result", () => {
  const config = parse({
    scale_attn_by_inverse_layer_idx: true,
    scale_attn_weights: false,
    reorder_and_upcast_attn: true,
  });
  assert.equal(config.scale_attn_by_inverse_layer_idx, true);
  assert.equal(config.scale_attn_weights, false);
  assert.deepEqual(parse({ reorder_and_upcast_attn: true }), gpt2Config("gpt2"), "scores are float32 anyway");
});

Deno.test("parseConfig() reads a missing end-of-text token, and one that cannot come, as none", () => {
  assert.equal(parse({ eos_token_id: null }).eos_token_id, null);
  assert.equal(parse({ eos_token_id: 7 }).eos_token_id, 7);
  assert.equal(parse({ vocab_size: 1000 }).eos_token_id, null);
  assert.equal(parse({ vocab_size: 1000, eos_token_id: 50256 }).eos_token_id, null);
  refuses({ eos_token_id: [50256, 198] }, /eos_token_id is \[50256,198\]. Use one token id, or null/);
});

Deno.test("parseConfig() refuses, by name, what it would compute wrongly", () => {
  refuses({ model_type: "llama" }, /^RangeError: Cannot use x\/config\.json: model_type is "llama"\. .*"gpt2"/);
  refuses({ model_type: undefined }, /model_type is missing/);
  refuses({ activation_function: "relu" }, /activation_function is "relu".*"gelu_new" or "gelu_pytorch_tanh"/);
  refuses({ tie_word_embeddings: false }, /tie_word_embeddings is false/);
  refuses({ add_cross_attention: true }, /add_cross_attention is true/);
  refuses({ n_embd: 100, n_head: 12 }, /n_head is 12. Use a number that divides n_embd, 100/);
  for (const bad of [0, -1, 1.5, "12", 1e12, NaN, [12], {}, true]) {
    refuses({ n_layer: bad }, /n_layer is .*whole number/);
  }
  refuses({ n_layer: 1001 }, /n_layer is 1001\. Use a whole number from 1 to 1000\./);
  refuses(
    { n_head: JSON.parse("[".repeat(1e5) + "]".repeat(1e5)) },
    /n_head is \[{60}…\. Use a whole number/,
  );
  for (const bad of [0, -1e-5, 1, "1e-5", Infinity]) refuses({ layer_norm_epsilon: bad }, /layer_norm_epsilon is /);
  refuses({ scale_attn_weights: 1 }, /scale_attn_weights is 1. Use true or false/);
  for (const json of [null, [], "gpt2", 3]) {
    assert.throws(() => parseConfig(json, "c.json"), /Cannot use c\.json: it holds/);
  }
});

Deno.test("gpt2Config() has the published numbers of parameters", () => {
  const published: Record<GPT2Size, number> = {
    "distilgpt2": 81_912_576,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
  };
  for (const size of Object.keys(GPT2_SIZES) as GPT2Size[]) {
    assert.equal(parameterCount(gpt2Config(size)), published[size], size);
  }
  assert.throws(() => gpt2Config("gpt3" as GPT2Size), /Cannot make "gpt3": the sizes are distilgpt2, gpt2,/);
});
