/**
 * Generating text for a batch: prefill the prompts once, then decode a token at a time for every row.
 *
 * @example
 * ```ts
 * import { AutoModelForCausalLM, AutoTokenizer, generateBatch } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const inputs = tokenizer(["Call me", "It is a truth universally"], { padding: true });
 * for (const { tokens } of await generateBatch(model, inputs, { maxTokens: 10 })) console.log(tokenizer.decode(tokens));
 * ```
 *
 * @module
 */

import { type Batch, longest, realTokens } from "../tokenizer/batch.ts";
import type { Parallelism } from "../backend/types.ts";
import { hearInterrupts, interruptSignal } from "../util/interrupt.ts";
import { KvCache } from "./kv_cache.ts";
import { checkContext, checkFollowing, checkMaxTokens } from "./limits.ts";
import { checkMemory, prefillChunk } from "./memory.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { parallelismFor } from "./parallelism.ts";
import { type NextTokens, Runner, type StepOptions } from "./runner.ts";
import type { Feed } from "./step_inputs.ts";

/** How to generate. */
export interface GenerateOptions extends StepOptions {
  /** The most tokens that a row gets: a whole number from 1 up. */
  maxTokens: number;
  /** Go on after the end-of-text token, as one does for timing. Otherwise a row ends with it. */
  ignoreEos?: boolean;
  /**
   * How to spread the rows over the processor: a row or more to each lane, a core to each thread. Default: as the model's
   * plan says.
   */
  parallelism?: Parallelism;
  /** Stops between two steps: the call then throws the signal's reason. A notebook's stop button does so by itself. */
  signal?: AbortSignal;
}

/** One row's answer. */
export interface Generated {
  /** The new tokens, with the end-of-text token if it ended the row. */
  tokens: number[];
  /** Why the row ended: at the end-of-text token, or at `maxTokens`. */
  finishReason: "stop" | "length";
  /** For each new token the natural logarithm of its probability, if asked for. */
  logprobs?: number[];
}

/** What one step added. */
export interface Step {
  /** 0 for the token that prefill chooses. */
  index: number;
  /** [B]: each row's new token, or null for a row that had ended before. */
  tokens: (number | null)[];
}

/** Generates for a whole batch: one answer per row of `inputs`, in order. A single prompt is a batch of one. */
export async function generateBatch(model: GPT2, inputs: Batch, options: GenerateOptions): Promise<Generated[]> {
  using generation = await prefill(model, inputs, options);
  while (!generation.finished) await decodeStep(model, generation);
  return generation.rows;
}

/** Like {@link generateBatch}, but yields each step as it comes; the last value returned is the answers. */
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
  checkMaxTokens(options.maxTokens);
  const rows = realTokens(inputs, { vocabSize: model.config.vocab_size });
  const promptLength = longest(rows);
  checkContext(promptLength, options.maxTokens, model.config.n_positions);
  checkMemory(model, rows.length, promptLength, options.maxTokens);
  options.signal?.throwIfAborted();
  const { cache, nextTokenIds, logprobs } = await feedPrompts(model, rows, options);
  const generation = new Generation(cache, options, model.config.eos_token_id);
  generation.add({ ids: nextTokenIds, logprobs });
  return generation;
}

/** Feeds each row's last token and chooses its next one. Throws the signal's reason if it is aborted. */
export async function decodeStep(model: GPT2, generation: Generation): Promise<Step> {
  generation.options.signal?.throwIfAborted();
  const feeds = generation.lastIds.map((id, i) => ({ row: generation.cache.rows[i], tokens: [id] }));
  return generation.add(await interruptibleStep(model, generation.cache, feeds, generation.options));
}

/** What {@link generateTokenKvCaching} gives back. */
export interface NextToken {
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
): Promise<NextToken> {
  if (!("cache" in inputs)) {
    return await feedPrompts(model, realTokens(inputs, { vocabSize: model.config.vocab_size }), options);
  }
  const { cache, inputIds } = inputs;
  checkFollowing(inputIds, cache, model);
  const feeds = inputIds.map((tokens, i) => ({ row: cache.rows[i], tokens }));
  const { ids, logprobs } = await interruptibleStep(model, cache, feeds, options);
  return { nextTokenIds: ids, logprobs, cache };
}

/** Prompts without padding into a new cache: a row of it for each. */
async function feedPrompts(
  model: GPT2,
  prompts: readonly (readonly number[])[],
  options: StepOptions & Partial<Pick<GenerateOptions, "parallelism" | "maxTokens">>,
): Promise<NextToken> {
  const { config, backend } = model, { maxTokens = 1 } = options;
  const parallelism = parallelismFor(model, prompts.length, options.parallelism);
  const later = backend.cachePolicy.emptySlotsAreFree ? maxTokens - 1 : 0; // where empty slots cost nothing
  const cache = new KvCache(model, parallelism);
  try {
    const rows = cache.admit({ slots: prompts.map(({ length }) => length + later) });
    const nextTokenIds: number[] = [], logprobs: number[] = [];
    const width = longest(prompts), chunk = prefillChunk(config, prompts.length, width);
    for (let start = 0; start < width; start += chunk) {
      const open = [...prompts.keys()].filter((i) => prompts[i].length > start);
      const isLast = (i: number) => prompts[i].length <= start + chunk;
      const feeds = open.map((i): Feed => {
        const tokens = prompts[i].slice(start, start + chunk);
        return { row: rows[i], tokens, wanted: isLast(i) ? [tokens.length - 1] : [] };
      });
      const next = await interruptibleStep(model, cache, feeds, options);
      for (const [k, i] of open.filter(isLast).entries()) {
        nextTokenIds[i] = next.ids[k];
        if (next.logprobs) logprobs[i] = next.logprobs[k];
      }
    }
    return { nextTokenIds, ...options.logprobs && { logprobs }, cache };
  } catch (error) {
    cache[Symbol.dispose]();
    throw error;
  }
}

/** A step; in a notebook, one that the stop button makes the last. */
async function interruptibleStep(
  model: GPT2,
  cache: KvCache,
  feeds: readonly Feed[],
  options: StepOptions,
): Promise<NextTokens> {
  const stop = interruptSignal();
  const next = await Runner.of(model).step(cache, feeds, options);
  await hearInterrupts();
  stop.throwIfAborted();
  return next;
}

/** A batch that is being generated. Made by {@link prefill}; frees its cache with `using` or `[Symbol.dispose]()`. */
export class Generation implements Disposable {
  /** What each row has got so far. */
  readonly rows: Generated[];
  /** [B]: the tokens to feed next. */
  lastIds: number[] = [];
  #lastStep: Step = { index: -1, tokens: [] };

  /** Made by {@link prefill}. */
  constructor(
    /** Keys and values of all tokens fed so far. */
    readonly cache: KvCache,
    /** How to generate. */
    readonly options: GenerateOptions,
    private readonly eosTokenId: number | null,
  ) {
    this.rows = cache.rows.map(() => ({
      tokens: [],
      finishReason: "length",
      ...options.logprobs && { logprobs: [] },
    }));
  }

  /** What the latest step added. */
  get lastStep(): Step {
    return this.#lastStep;
  }

  /** True when no row wants another token. */
  get finished(): boolean {
    return this.#lastStep.index + 1 >= this.options.maxTokens || this.rows.every((row) => row.finishReason === "stop");
  }

  /** Takes in the tokens that a step chose. Rows that have ended are computed along with the rest, and ignored. */
  add({ ids, logprobs }: NextTokens): Step {
    const open = this.rows.map((row) => row.finishReason !== "stop");
    for (const [i, row] of this.rows.entries()) {
      if (!open[i]) continue;
      row.tokens.push(ids[i]);
      row.logprobs?.push(logprobs![i]);
      if (ids[i] === this.eosTokenId && !this.options.ignoreEos) row.finishReason = "stop";
    }
    this.lastIds = ids;
    return this.#lastStep = { index: this.#lastStep.index + 1, tokens: ids.map((id, i) => open[i] ? id : null) };
  }

  /** Frees the cache. */
  [Symbol.dispose](): void {
    this.cache[Symbol.dispose]();
  }
}
