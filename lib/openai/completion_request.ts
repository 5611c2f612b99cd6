/** The body of `POST /v1/completions`: OpenAI's settings and vLLM's extensions of them, read into requests for an engine. */

import { z } from "zod";
import type { Answering } from "../engine/job.ts";
import type { Engine, SubmitOptions } from "../engine/engine.ts";
import { MOST_BIAS, randomSeed, SAMPLING_RANGES } from "../engine/sampling.ts";
import type { Tokenizer } from "../tokenizer/byte_pair.ts";
import { quote } from "../util/quote.ts";
import { nextTurn } from "../util/turn.ts";
import { ApiError, apiError } from "./error.ts";

/** A model as clients know it. */
export interface ServedModel {
  /** What they call it. */
  name: string;
  /** Its context and vocabulary. */
  config: { readonly n_positions: number; readonly vocab_size: number };
  /** Its own. */
  tokenizer: Tokenizer;
}

/** What a body asks for: `n` answers to each of its prompts. */
export interface CompletionRequest {
  /** In the order of the body. */
  prompts: Prompt[];
  n: number;
  /** Send the answers as they come; then also what they took, if `includeUsage`, and so far in each chunk, if `continuousUsage`. */
  stream: boolean;
  includeUsage: boolean;
  continuousUsage: boolean;
  /** Begin each answer's text with the prompt's. */
  echo: boolean;
  /** Give log-probabilities: of the tokens, and of so many of the most likely ones. */
  logprobs?: number;
  /** The prompts are only to be scored: the one token that an engine makes at least is left out. */
  promptOnly: boolean;
}

/** One prompt of a body. */
export interface Prompt {
  /** As it was written, or the text of its tokens. */
  text: string;
  /** For {@link Engine.submitAll}. */
  options: SubmitOptions;
}

/** The most prompts in one body: what OpenAI allows in a list of texts. */
const MOST_PROMPTS = 2048;
/** The most answers to a prompt: OpenAI's limit. */
const MOST_ANSWERS = 128;
/** The most likely tokens that can be asked for: vLLM's limit. */
const MOST_LOGPROBS = 20;
/** The most stop texts, and tokens that end an answer or have a bias: each costs time at every token. */
const MOST_STOPS = 16, MOST_IDS = 1024;

const between = (least: number, most: number) => {
  const error = `it must be a number from ${least} to ${most}`;
  return z.number({ error }).min(least, { error }).max(most, { error });
};
const number = (name: keyof typeof SAMPLING_RANGES) => {
  const [least, most] = SAMPLING_RANGES[name];
  return between(least, most).nullish();
};
const whole = (least: number, most: number = Number.MAX_SAFE_INTEGER) => {
  const range = most === Number.MAX_SAFE_INTEGER ? `from ${least} up` : `from ${least} to ${most}`;
  const error = `it must be a whole number ${range}`;
  return z.int({ error }).min(least, { error }).max(most, { error });
};
const flag = () => z.boolean({ error: "it must be true or false" }).nullish();
/** Of a list that is too long not one element is looked at. */
const list = <T extends z.ZodType>(item: T, most: number, things: string) => {
  const error = `it must be a list of at most ${most} ${things}`;
  return z.array(z.unknown(), { error }).max(most, { error }).pipe(z.array(item, { error }));
};
const text = z.string({ error: "it must be a text" });

/** What is understood. Everything else is ignored, unless it is known and would change the answer. */
const BODY = z.object({
  model: text.nullish(),
  prompt: z.unknown().optional(), // see promptsIn()
  max_tokens: whole(0).nullish(),
  n: whole(1, MOST_ANSWERS).nullish(),
  temperature: number("temperature"),
  top_p: number("topP"),
  top_k: whole(-1, SAMPLING_RANGES.topK[1]).nullish(),
  min_p: number("minP"),
  repetition_penalty: number("repetitionPenalty"),
  presence_penalty: number("presencePenalty"),
  frequency_penalty: number("frequencyPenalty"),
  min_tokens: whole(...SAMPLING_RANGES.minTokens.slice(0, 2) as [number, number]).nullish(),
  logit_bias: z.unknown().refine((bias) => typeof bias !== "object" || Object.keys(bias ?? {}).length <= MOST_IDS, {
    error: `it must name at most ${MOST_IDS} tokens`,
    abort: true,
  }).pipe(
    z.record(
      z.string().regex(/^\d+$/, { error: "the names must be token ids" }),
      between(-MOST_BIAS, MOST_BIAS),
      { error: "it must be an object of token ids and numbers" },
    ).nullish(),
  ).optional(),
  seed: z.int({ error: "it must be a whole number of at most 53 bits" }).nullish(),
  stop: z.union([z.string(), list(z.string(), MOST_STOPS, "texts")], {
    error: `it must be a text, or a list of at most ${MOST_STOPS} texts`,
  }).nullish(),
  stop_token_ids: list(whole(0), MOST_IDS, "token ids").nullish(),
  ignore_eos: flag(),
  echo: flag(),
  logprobs: whole(0, MOST_LOGPROBS).nullish(),
  stream: flag(),
  stream_options: z.object({ include_usage: flag(), continuous_usage_stats: flag() }, {
    error: "it must be an object",
  }).nullish(),
}, { error: "it must be a JSON object" });

/** Settings of OpenAI's or vLLM's that are not supported, each with values that ask for nothing. */
const UNSUPPORTED: Readonly<Record<string, readonly unknown[]>> = {
  best_of: [1],
  suffix: [""],
  use_beam_search: [false],
  length_penalty: [1],
  include_stop_str_in_output: [false],
  skip_special_tokens: [true],
  spaces_between_special_tokens: [true],
  truncate_prompt_tokens: [],
  allowed_token_ids: [],
  bad_words: [],
  prompt_logprobs: [],
  prompt_embeds: [],
  response_format: [],
  structured_outputs: [],
  guided_json: [],
  guided_regex: [],
  guided_choice: [],
  guided_grammar: [],
  logits_processors: [],
  return_tokens_as_token_ids: [false],
  return_token_ids: [false],
  kv_transfer_params: [],
  priority: [0],
};

/**
 * Reads a body. Rejects with an {@link ApiError} about the first thing that cannot be: 404 for another model's name, else 400.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { AutoTokenizer } from "../mod.ts";
 * import { completionRequest } from "./completion_request.ts";
 *
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const served = { name: "small", config: { n_positions: 256, vocab_size: 50257 }, tokenizer };
 * const { prompts, n } = await completionRequest({ prompt: ["Call me", "What comes"], max_tokens: 5, n: 2 }, served);
 * assert.deepEqual([prompts.map(({ text }) => text), n], [["Call me", "What comes"], 2]);
 * assert.equal(prompts[0].options.temperature, 1);
 * ```
 */
export async function completionRequest(body: unknown, served: ServedModel): Promise<CompletionRequest> {
  const { data, error } = BODY.safeParse(body);
  if (error) throw refusal(error.issues[0], body);
  checkSupported(body as Record<string, unknown>);
  checkModel(data.model, served);
  const { echo, stream_options: streaming, max_tokens: maxTokens = 16, min_tokens: minTokens } = withoutNulls(data);
  if (maxTokens === 0 && !echo) {
    throw new ApiError(400, "Cannot use max_tokens 0 without echo: nothing would come back.", { param: "max_tokens" });
  }
  if (minTokens !== undefined && minTokens > maxTokens) {
    throw new ApiError(400, `Cannot use min_tokens ${minTokens}: max_tokens is ${maxTokens}.`, { param: "min_tokens" });
  }
  const options = optionsOf(withoutNulls(data), served), prompts: Prompt[] = [];
  for (const prompt of promptsIn(data.prompt)) {
    if (prompts.length) await nextTurn(); // many long texts are not to keep others waiting
    const { text, tokens } = tokensOf(prompt, Math.max(1, maxTokens), served);
    prompts.push({ text, options: { ...options, prompt: tokens, seed: options.seed ?? randomSeed() } });
  }
  return {
    prompts,
    n: data.n ?? 1,
    stream: data.stream ?? false,
    includeUsage: streaming?.include_usage ?? false,
    continuousUsage: streaming?.continuous_usage_stats ?? false,
    echo: echo ?? false,
    logprobs: data.logprobs ?? undefined,
    promptOnly: maxTokens === 0,
  };
}

/** Throws an {@link ApiError} of status 404 if a name is given and is not the model's. */
export function checkModel(name: string | null | undefined, { name: served }: ServedModel): void {
  if (name === undefined || name === null || name === served) return;
  throw new ApiError(404, `There is no model ${quote(name)}: use ${quote(served)}.`, {
    param: "model",
    code: "model_not_found",
  });
}

/**
 * Gives an engine all that a body asks for, or nothing: the answers to come, `n` for each prompt, in order. Throws an
 * {@link ApiError}: 429 if too many requests wait, 422 if the engine's memory is too small for a prompt.
 */
export function submitCompletion(
  engine: Engine,
  { prompts, n }: CompletionRequest,
  more: Pick<SubmitOptions, "signal" | "priority"> = {},
): Answering[] {
  const answers: Answering[] = [];
  try {
    for (const { options } of prompts) answers.push(...engine.submitAll({ ...options, ...more }, n));
    return answers;
  } catch (error) {
    for (const answer of answers) answer.cancel(error);
    throw apiError(error);
  }
}

type Body = z.infer<typeof BODY>;
type WithoutNulls<T> = { [K in keyof T]: Exclude<T[K], null> };

/** Clients write null for what they leave out. */
function withoutNulls(body: Body): WithoutNulls<Body> {
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null)) as WithoutNulls<Body>;
}

function optionsOf(body: WithoutNulls<Body>, { tokenizer, config }: ServedModel): Omit<SubmitOptions, "prompt"> {
  const { logprobs, echo, stop, stop_token_ids: stopIds, logit_bias: logitBias } = body;
  for (const id of [...stopIds ?? [], ...Object.keys(logitBias ?? {}).map(Number)]) {
    if (id < config.vocab_size) continue;
    const param = stopIds?.includes(id) ? "stop_token_ids" : "logit_bias";
    throw new ApiError(400, `Cannot use ${param}: there is no token ${id}; the last is ${config.vocab_size - 1}.`, {
      param,
    });
  }
  return {
    maxTokens: Math.max(1, body.max_tokens ?? 16),
    temperature: body.temperature ?? 1,
    topP: body.top_p,
    topK: body.top_k === -1 ? 0 : body.top_k, // vLLM's other way to say "all"
    minP: body.min_p,
    repetitionPenalty: body.repetition_penalty,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    minTokens: body.min_tokens,
    seed: body.seed,
    ignoreEos: body.ignore_eos,
    ...{ tokenizer, stop, stopIds, logitBias },
    ...logprobs !== undefined && { logprobs: true, topLogprobs: logprobs, promptLogprobs: echo },
  };
}

/** A prompt is a text or a list of token ids; a body has one of them, or a list of them. */
function promptsIn(prompt: unknown): (string | number[])[] {
  const bad = (message: string) => new ApiError(400, `Cannot use prompt: ${message}.`, { param: "prompt" });
  if (typeof prompt === "string") return [prompt];
  const isId = (id: unknown) => Number.isSafeInteger(id) && id as number >= 0;
  if (Array.isArray(prompt) && prompt.length > 0) {
    if (prompt.every(isId)) return [prompt];
    if (prompt.length > MOST_PROMPTS) throw bad(`it has ${prompt.length} elements; at most ${MOST_PROMPTS} prompts`);
    if (prompt.every((one) => typeof one === "string")) return prompt;
    if (prompt.every((ids) => Array.isArray(ids) && ids.length > 0 && ids.every(isId))) return prompt;
  }
  throw bad("it must be a text, a list of token ids, or a list of one kind of these, none of them empty");
}

/** The tokens of a prompt that leaves room for `maxTokens` more. */
function tokensOf(prompt: string | number[], maxTokens: number, { tokenizer, config }: ServedModel) {
  const { n_positions, vocab_size } = config;
  const tooLong = (length: string) =>
    new ApiError(
      400,
      `Cannot generate ${maxTokens} tokens: the prompt has ${length} and the model holds ${n_positions}. ` +
        "Shorten the prompt or lower max_tokens.",
      { param: "prompt", code: "context_length_exceeded" },
    );
  if (typeof prompt === "string") {
    if (!prompt.isWellFormed()) {
      throw new ApiError(400, "Cannot use prompt: it has half a character (a lone surrogate).", { param: "prompt" });
    }
    const least = Math.ceil(prompt.length / longestToken(tokenizer)); // found out without tokenizing a huge text
    if (least > n_positions) throw tooLong(`${least} or more`);
  }
  const tokens = typeof prompt === "string" ? tokenizer(prompt).inputIds[0] : prompt;
  if (tokens.length + maxTokens > n_positions) throw tooLong(`${tokens.length}`);
  const bad = tokens.find((id) => id >= vocab_size);
  if (bad !== undefined) {
    throw new ApiError(400, `Cannot use prompt: there is no token ${bad}; the last is ${vocab_size - 1}.`, {
      param: "prompt",
    });
  }
  return { tokens, text: typeof prompt === "string" ? prompt : tokenizer.decode(tokens) };
}

const longest = new WeakMap<Tokenizer, number>();

/** The most UTF-16 units of text that one token can stand for. */
function longestToken(tokenizer: Tokenizer): number {
  let length = longest.get(tokenizer);
  if (length === undefined) {
    length = 1;
    for (let id = 0; id < tokenizer.vocabSize; id++) length = Math.max(length, tokenizer.tokenToText(id).length);
    longest.set(tokenizer, length);
  }
  return length;
}

function checkSupported(body: Record<string, unknown>): void {
  for (const [name, neutral] of Object.entries(UNSUPPORTED)) {
    const value = Object.hasOwn(body, name) ? body[name] : null;
    const asksNothing = value === null || Array.isArray(value) && value.length === 0;
    if (!asksNothing && !neutral.includes(value)) throw unsupported(name);
  }
}

function unsupported(param: string): ApiError {
  return new ApiError(400, `Cannot use ${param}: it is not supported. Leave it out.`, { param, code: "unsupported" });
}

/** A schema's first complaint, with the value that it is about. */
function refusal({ path, message }: z.core.$ZodIssue, body: unknown): ApiError {
  const param = path.join(".");
  let value = body;
  for (const key of path) value = (value as Record<PropertyKey, unknown>)?.[key];
  return new ApiError(400, `Cannot use ${param || "the body"}${shown(value)}: ${message}.`, {
    param: param || undefined,
  });
}

function shown(value: unknown): string {
  if (typeof value === "string") return ` ${quote(value)}`;
  return typeof value === "object" || value === undefined ? "" : ` ${value}`;
}
