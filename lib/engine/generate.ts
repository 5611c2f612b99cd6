/** Generating text for a batch: prefill the prompts once, then decode a token at a time for every row. */

import type { Parallelism, RunAhead } from "../backend/types.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { type Batch, longest, realTokens } from "../tokenizer/batch.ts";
import { interruptSignal } from "../util/interrupt.ts";
import { nextTurn } from "../util/turn.ts";
import type { Row } from "./bucket.ts";
import { KvCache } from "./kv_cache.ts";
import { checkContext, checkCount, checkFollowing, checkMaxTokens, checkPrompt } from "./limits.ts";
import { checkMemory, prefillChunk } from "./memory.ts";
import { parallelismFor } from "./parallelism.ts";
import { type AnswerOptions, type Generated, Request } from "./request.ts";
import { type NextToken, Runner, type StepOptions } from "./runner.ts";
import type { SampledRow } from "./sampled_row.ts";
import { randomSeed } from "./sampling.ts";
import type { Feed, Wanted } from "./step_inputs.ts";

/** How to generate. */
export interface GenerateOptions extends AnswerOptions, StepOptions {
  /** Answers to each prompt, which is fed once for all of them. They differ by their draws. Default 1. */
  n?: number;
  /** Also give the log-probability of each token of the prompts. */
  promptLogprobs?: boolean;
  /** For prompts that want something else than the rest: what differs, by prompt. */
  rows?: readonly (Partial<AnswerOptions> | undefined)[];
  /**
   * How to spread the rows over the processor: a row or more to each lane, a core to each thread. Default: as the model's
   * plan says.
   */
  parallelism?: Parallelism;
  /**
   * Stops between two steps, once those that run ahead are done: the call then throws the signal's reason. A notebook's stop button
   * does so by itself.
   */
  signal?: AbortSignal;
}

/** What one step added. */
export interface Step {
  /** 0 for the token that prefill chooses. */
  index: number;
  /** [B]: each row's new token, or null for a row that had ended before. */
  tokens: (number | null)[];
  /** [B]: the text that is certain with it, where there is a tokenizer. A stop text is no part of it. */
  texts: string[];
}

/**
 * Generates for a whole batch: one answer per row of `inputs`, in order; with `n`, as many one after another. A single prompt
 * is a batch of one. Rows that end leave the batch.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { AutoModelForCausalLM, AutoTokenizer, generateBatch } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const sampling = { temperature: 0.8, topP: 0.95, n: 3, stop: ".", tokenizer };
 * const answers = await generateBatch(model, tokenizer("Call me"), { maxTokens: 20, ...sampling });
 * assert.equal(answers.length, 3);
 * for (const { text, finishReason, seed } of answers) console.log(text, finishReason, seed);
 * ```
 */
export async function generateBatch(model: GPT2, inputs: Batch, options: GenerateOptions): Promise<Generated[]> {
  using generation = await prefill(model, inputs, options);
  while (!generation.finished) await decodeSteps(model, generation);
  return generation.rows;
}

/**
 * Like {@link generateBatch}, but yields each step as it comes; the last value returned is the answers.
 *
 * @example
 * ```ts
 * import { AutoModelForCausalLM, AutoTokenizer, generateSteps } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const steps = generateSteps(model, tokenizer("Call me"), { maxTokens: 10, tokenizer });
 * for await (const { texts } of steps) console.log(texts[0]);
 * ```
 */
export async function* generateSteps(
  model: GPT2,
  inputs: Batch,
  options: GenerateOptions,
): AsyncGenerator<Step, Generated[]> {
  using generation = await prefill(model, inputs, options); // freed whichever way the loop ends
  yield generation.lastStep;
  while (!generation.finished) yield await decodeStep(model, generation);
  return generation.rows;
}

/**
 * Runs the prompts through the model and chooses each row's first new token.
 *
 * Throws a RangeError when the batch, the options, the model's context or the memory do not allow what is asked, and the
 * signal's reason if it is aborted.
 */
export async function prefill(model: GPT2, inputs: Batch, options: GenerateOptions): Promise<Generation> {
  const requests = requestsFor(model, inputs, options), prompts = requests.map(([{ prompt }]) => prompt);
  options.signal?.throwIfAborted();
  const start = performance.now();
  const cache = new KvCache(model, parallelismFor(model, prompts.length, options.parallelism));
  try {
    const { maxTokens, promptLogprobs } = options,
      choosers = requests.map((same) => same.map(({ sampled }) => sampled));
    const fed = await feedPrompts(model, cache, prompts, { ...options, room: maxTokens - 1, choosers });
    for (const [i, same] of requests.entries()) {
      for (const { answer } of promptLogprobs ? same : []) {
        answer.promptLogprobs = fed.scores[i].map(({ logprob }) => logprob!);
        if (options.topLogprobs) answer.promptTopLogprobs = fed.scores[i].map(({ top }) => top!);
      }
    }
    const rows = requests.map((same, i) => same.map((_, k) => k ? cache.fork(fed.rows[i]) : fed.rows[i]));
    const generation = new Generation(cache, requests.flat(), rows.flat(), options, performance.now() - start);
    generation.add(fed.next.flat());
    return generation;
  } catch (error) {
    cache[Symbol.dispose]();
    throw error;
  }
}

/** Feeds the last token of each row that goes on, and chooses its next one. Throws the signal's reason if it is aborted. */
export async function decodeStep(model: GPT2, generation: Generation): Promise<Step> {
  generation.options.signal?.throwIfAborted();
  return generation.add(await interruptibleStep(model, generation.cache, generation.feeds, generation.options));
}

/**
 * The same once, or several times at once where all rows take their most likely tokens and the backend runs ahead. Throws the
 * signal's reason if it is aborted.
 */
export async function decodeSteps(model: GPT2, generation: Generation): Promise<void> {
  const { options, cache, feeds } = generation, { capture, runsAhead } = model.backend;
  const count = capture && runsAhead ? generation.stepsAhead(runsAhead) : 1, start = performance.now();
  if (count === 1) {
    await decodeStep(model, generation);
  } else {
    options.signal?.throwIfAborted();
    for (const next of await interruptible(() => Runner.of(model).greedySteps(cache, feeds, count))) {
      const open = new Set(generation.feeds.map(({ row }) => row));
      if (open.size) generation.add(next.filter((_, i) => open.has(feeds[i].row)));
    }
  }
  generation.stepMilliseconds = (performance.now() - start) / count;
}

/**
 * The requests for each prompt of a batch, of which there are `n`. Throws a RangeError when the batch, the options, the model's
 * context or the memory do not allow what is asked.
 */
export function requestsFor(model: GPT2, inputs: Batch, options: GenerateOptions): Request[][] {
  const { config } = model, { n = 1, rows = [], ...common } = options;
  checkCount("n", n);
  checkCount("topLogprobs", options.topLogprobs ?? 0, 0, config.vocab_size);
  checkMaxTokens(options.maxTokens);
  const prompts = realTokens(inputs, { vocabSize: config.vocab_size });
  checkMemory(model, prompts.length * n, longest(prompts), options.maxTokens);
  parallelismFor(model, prompts.length, options.parallelism);
  return prompts.map((prompt, i) => {
    const own = { ...common, ...rows[i] };
    own.seed ??= randomSeed(); // one for all answers to a prompt
    checkMaxTokens(own.maxTokens);
    checkContext(prompt.length, own.maxTokens, config.n_positions);
    return Array.from({ length: n }, (_, choice) => new Request(prompt, own, config, choice));
  });
}

/** The next token after each of some texts, in a cache of their own that is gone afterwards. */
export async function nextTokensAfter(
  model: GPT2,
  texts: readonly (readonly number[])[],
  choosers: readonly SampledRow[],
  options: GenerateOptions,
): Promise<NextToken[]> {
  const { lanes, threads } = options.parallelism ?? parallelismFor(model, texts.length);
  using cache = new KvCache(model, { lanes: Math.min(lanes, texts.length), threads });
  const { next } = await feedPrompts(model, cache, texts, {
    ...options,
    room: 0,
    choosers: choosers.map((one) => [one]),
  });
  return next.flat();
}

/** What {@link generateTokenKvCaching} gives back. */
export interface NextTokens {
  /** [B]: each row's most likely next token. */
  nextTokenIds: number[];
  /** [B]: the logarithm of its probability, if asked for. */
  logprobs?: number[];
  /** Holds the keys and values of all tokens so far. The caller frees it. */
  cache: KvCache;
}

/**
 * The next token of every row, and the cache to go on with: the step that generation repeats.
 *
 * Without a cache, `inputIds` [B, T] are prompts, padded on either side as `attentionMask` says, and a cache is made
 * (prefill), with room for `maxTokens` new ones where that costs nothing. With one, they are what follows what it holds,
 * [B, 1] (decode).
 *
 * @example
 * ```ts
 * import { AutoModelForCausalLM, AutoTokenizer, generateTokenKvCaching } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const prompts = tokenizer(["Call me", "What comes up must"], { padding: true });
 * const { nextTokenIds, cache } = await generateTokenKvCaching(model, prompts);
 * const next = await generateTokenKvCaching(model, { inputIds: nextTokenIds.map((id) => [id]), cache });
 * console.log(tokenizer.decode(next.nextTokenIds));
 * cache[Symbol.dispose]();
 * ```
 */
export async function generateTokenKvCaching(
  model: GPT2,
  inputs: Batch | { inputIds: number[][]; cache: KvCache },
  options: StepOptions & Partial<Pick<GenerateOptions, "parallelism" | "maxTokens">> = {},
): Promise<NextTokens> {
  if ("cache" in inputs) {
    const { cache, inputIds } = inputs;
    checkFollowing(inputIds, cache, model);
    const feeds = inputIds.map((tokens, i) => ({ row: cache.rows[i], tokens }));
    return nextTokensOf(await interruptibleStep(model, cache, feeds, options), cache);
  }
  const prompts = realTokens(inputs, { vocabSize: model.config.vocab_size }), { maxTokens = 1 } = options;
  checkPrompt(longest(prompts), model.config.n_positions);
  checkMemory(model, prompts.length, longest(prompts), maxTokens);
  const cache = new KvCache(model, parallelismFor(model, prompts.length, options.parallelism));
  try {
    const { next } = await feedPrompts(model, cache, prompts, { ...options, room: maxTokens - 1 });
    return nextTokensOf(next.flat(), cache);
  } catch (error) {
    cache[Symbol.dispose]();
    throw error;
  }
}

function nextTokensOf(next: readonly NextToken[], cache: KvCache): NextTokens {
  const withLogprobs = next[0]?.logprob !== undefined;
  return {
    nextTokenIds: next.map(({ id }) => id),
    ...withLogprobs && { logprobs: next.map(({ logprob }) => logprob!) },
    cache,
  };
}

/** How prompts are fed. */
interface FeedOptions extends StepOptions {
  /** Slots to make besides the prompts', where empty ones cost nothing. */
  room: number;
  /** Who chooses next tokens, for each prompt. Default: one, the most likely. */
  choosers?: readonly (readonly SampledRow[])[];
  promptLogprobs?: boolean;
}

/** Feeds prompts to new rows, in chunks if they are long: the rows, what comes next, and what the prompts' tokens were worth. */
async function feedPrompts(
  model: GPT2,
  cache: KvCache,
  prompts: readonly (readonly number[])[],
  { room, choosers, promptLogprobs = false, ...options }: FeedOptions,
): Promise<{ rows: Row[]; next: NextToken[][]; scores: NextToken[][] }> {
  const { config, backend } = model, width = longest(prompts);
  const later = backend.cachePolicy.emptySlotsAreFree ? room : 0;
  const rows = cache.admit({ slots: prompts.map(({ length }) => length + later) });
  const next = prompts.map((): NextToken[] => []), scores = prompts.map((): NextToken[] => []);
  const chunk = prefillChunk(config, prompts.length, width, promptLogprobs);
  const stepOptions = { ...options, logprobs: options.logprobs || promptLogprobs };
  for (let start = 0; start < width; start += chunk) {
    const feeds: (Feed & { i: number; wanted: Wanted[] })[] = [];
    for (const [i, prompt] of prompts.entries()) {
      const tokens = prompt.slice(start, start + chunk), last = tokens.length - 1, wanted: Wanted[] = [];
      if (tokens.length === 0) continue;
      for (const after of promptLogprobs ? tokens.keys() : []) {
        const following = prompt[start + after + 1];
        if (following !== undefined) wanted.push({ after, next: following });
      }
      if (start + tokens.length === prompt.length) {
        wanted.push(...(choosers?.[i] ?? [undefined]).map((next) => ({ after: last, next })));
      }
      feeds.push({ i, row: rows[i], tokens, wanted });
    }
    const chosen = await interruptibleStep(model, cache, feeds, stepOptions);
    let at = 0;
    for (const { i, wanted } of feeds) {
      for (const { next: chooser } of wanted) {
        const token = chosen[at++];
        if (typeof chooser === "number") scores[i].push(token);
        else next[i].push(options.logprobs || options.topLogprobs ? token : { ...token, logprob: undefined });
      }
    }
  }
  return { rows, next, scores };
}

/** Gives the requests that go on their next tokens, and says what that adds to all of them. */
export function acceptTokens(
  index: number,
  requests: readonly Request[],
  open: readonly Request[],
  next: readonly NextToken[],
): Step {
  const step: Step = { index, tokens: requests.map(() => null), texts: requests.map(() => "") };
  const places = new Map(requests.map((request, i) => [request, i]));
  for (const [i, request] of open.entries()) {
    const place = places.get(request)!;
    step.texts[place] = request.accept(next[i]);
    step.tokens[place] = next[i].id;
  }
  return step;
}

function interruptibleStep(
  model: GPT2,
  cache: KvCache,
  feeds: readonly Feed[],
  options: StepOptions,
): Promise<NextToken[]> {
  return interruptible(() => Runner.of(model).step(cache, feeds, options));
}

/** Does what gives the event loop a turn; in a notebook, one that the stop button makes the last. */
async function interruptible<T>(work: () => Promise<T>): Promise<T> {
  const stop = interruptSignal();
  const done = await work();
  await nextTurn();
  stop.throwIfAborted();
  return done;
}

/** A batch that is being generated. Made by {@link prefill}; frees its cache with `using` or `[Symbol.dispose]()`. */
export class Generation implements Disposable {
  /** What each row has got so far. */
  readonly rows: Generated[];
  /** Requests that have not ended, and the rows of the cache that are theirs. */
  #open: { request: Request; row: Row }[];
  #lastStep: Step = { index: -1, tokens: [], texts: [] };

  /** Made by {@link prefill}. */
  constructor(
    /** Keys and values of all tokens fed so far. */
    readonly cache: KvCache,
    private readonly requests: readonly Request[],
    rows: readonly Row[],
    /** How to generate. */
    readonly options: GenerateOptions,
    /** What the latest step took: at first prefill, which takes longer than the next one will. */
    public stepMilliseconds: number,
  ) {
    this.rows = requests.map(({ answer }) => answer);
    this.#open = requests.map((request, i) => ({ request, row: rows[i] }));
  }

  /** What the latest step added. */
  get lastStep(): Step {
    return this.#lastStep;
  }

  /** True when no row wants another token. */
  get finished(): boolean {
    return this.#open.length === 0;
  }

  /** How many steps to start at once: more than one if all rows take their most likely tokens and nothing else is asked of them. */
  stepsAhead({ certain, uncertain, milliseconds }: RunAhead): number {
    const { logprobs, topLogprobs } = this.options, requests = this.#open.map(({ request }) => request);
    if (logprobs || topLogprobs || !requests.every(({ sampled }) => sampled.takesLargest)) return 1;
    const most = requests.some(({ mayEndEarly }) => mayEndEarly) ? uncertain : certain;
    const left = requests.reduce((least, { tokensLeft }) => Math.min(least, tokensLeft), Infinity);
    return Math.max(1, Math.min(most, left, Math.floor(milliseconds / this.stepMilliseconds)));
  }

  /** What to feed next: the last token of each row that goes on. */
  get feeds(): Feed[] {
    return this.#open.map(({ request: { lastToken, sampled }, row }) => ({
      row,
      tokens: [lastToken],
      wanted: [{ after: 0, next: sampled }],
    }));
  }

  /** Takes in the next tokens of the rows that go on. Those that end with them leave the batch. */
  add(next: readonly NextToken[]): Step {
    const step = acceptTokens(this.#lastStep.index + 1, this.requests, this.#open.map(({ request }) => request), next);
    const ended = this.#open.filter(({ request }) => request.ended);
    if (ended.length < this.#open.length) { for (const { row } of ended) this.cache.release(row); }
    this.#open = this.#open.filter(({ request }) => !request.ended);
    return this.#lastStep = step;
  }

  /** Frees the cache. */
  [Symbol.dispose](): void {
    this.cache[Symbol.dispose]();
  }
}
