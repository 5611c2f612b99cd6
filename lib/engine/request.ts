/** What is asked for one answer, and how far it is. */

import type { Tokenizer } from "../tokenizer/byte_pair.ts";
import { AnswerText } from "./answer_text.ts";
import type { NextToken } from "./runner.ts";
import { SampledRow } from "./sampled_row.ts";
import { isGreedy, type SamplingOptions, samplingSettings } from "./sampling.ts";

/** How one answer is to be made. */
export interface AnswerOptions extends SamplingOptions {
  /** The most tokens that it gets: a whole number from 1 up. */
  maxTokens: number;
  /** Go on after the end-of-text token, as one does for timing. Otherwise the answer ends with it. */
  ignoreEos?: boolean;
  /** Tokens that end the answer, besides the end-of-text token. They are its last. Default: none. */
  stopIds?: readonly number[];
  /** Texts that end the answer, which does not contain them, nor its tokens anything after them. They need `tokenizer`. */
  stop?: string | readonly string[];
  /** With it, the answer has its text. */
  tokenizer?: Tokenizer;
}

/** An answer. */
export interface Generated {
  /** The new tokens, with the one that ended the answer if a token did. */
  tokens: number[];
  /** Why it ended: at a token or text that ends it, or at `maxTokens`. Null while it has not. */
  finishReason: "stop" | "length" | null;
  /** Its text up to a stop text, where there is a tokenizer. */
  text?: string;
  /** For each new token the natural logarithm of its probability, if asked for. */
  logprobs?: number[];
  /** For each new token the most likely ones, if asked for. */
  topLogprobs?: { id: number; logprob: number }[][];
  /** For each token of the prompt but the first the same, if asked for. */
  promptLogprobs?: number[];
  /** For each token of the prompt but the first the most likely ones in its place, if both are asked for. */
  promptTopLogprobs?: { id: number; logprob: number }[][];
  /** What its draws follow from, if it was sampled. */
  seed?: number;
}

/** One answer to one prompt. It owns all that is known of it; what a cache holds of it is for others to know. */
export class Request {
  /** The answer as far as it is. */
  readonly answer: Generated = { tokens: [], finishReason: null };
  /** Who chooses its next token. */
  readonly sampled: SampledRow;
  readonly #text?: AnswerText;
  readonly #ends: ReadonlySet<number>;

  /**
   * `choice` counts the answers to one prompt. Throws a RangeError or TypeError about the first option that cannot be.
   */
  constructor(
    /** The prompt's tokens. */
    readonly prompt: readonly number[],
    private readonly options: AnswerOptions,
    { vocab_size, eos_token_id }: { vocab_size: number; eos_token_id: number | null },
    choice = 0,
  ) {
    const { ignoreEos = false, stopIds = [], stop, tokenizer } = options;
    const endIds = [...ignoreEos || eos_token_id === null ? [] : [eos_token_id], ...stopIds];
    for (const id of stopIds) {
      if (Number.isInteger(id) && id >= 0 && id < vocab_size) continue;
      throw new RangeError(`Cannot stop at token ${id}: the model has tokens 0 to ${vocab_size - 1}.`);
    }
    const settings = samplingSettings(options, { vocabSize: vocab_size });
    this.sampled = new SampledRow(settings, { prompt, choice, endIds });
    this.#ends = new Set(endIds);
    if (!isGreedy(settings)) this.answer.seed = settings.seed;
    if (tokenizer) {
      this.#text = new AnswerText(tokenizer, { stop, minTokens: settings.minTokens, skipSpecialTokens: true });
      this.answer.text = "";
    } else if (stop !== undefined) {
      throw new TypeError(
        "Cannot stop at a text without a tokenizer: pass the model's as `tokenizer`, or use stopIds.",
      );
    }
  }

  /** Whether it has ended. */
  get ended(): boolean {
    return this.answer.finishReason !== null;
  }

  /** The most tokens that it is still to get. */
  get tokensLeft(): number {
    return this.options.maxTokens - this.answer.tokens.length;
  }

  /** Whether a token or a text may end it before. */
  get mayEndEarly(): boolean {
    return this.#ends.size > 0 || this.options.stop !== undefined;
  }

  /** The most tokens that are ever fed of it: all but the last of its answer. */
  get mostFed(): number {
    return this.prompt.length + this.options.maxTokens - 1;
  }

  /** The token to feed next. */
  get lastToken(): number {
    return this.answer.tokens.at(-1) ?? this.prompt.at(-1)!;
  }

  /** Takes in its next token. Gives the text that is certain with it, where there is a tokenizer. */
  accept({ id, logprob, top }: NextToken): string {
    const { answer } = this, { maxTokens } = this.options;
    answer.tokens.push(id);
    if (logprob !== undefined) (answer.logprobs ??= []).push(logprob);
    if (top) (answer.topLogprobs ??= []).push(top);
    this.sampled.add(id);
    let piece = this.#text?.push(id) ?? "";
    if (this.#ends.has(id) || this.#text?.stopText !== undefined) answer.finishReason = "stop";
    else if (answer.tokens.length >= maxTokens) answer.finishReason = "length";
    if (this.ended && this.#text) {
      piece += this.#text.end();
      if (this.#text.stopText !== undefined) this.#cutTo(this.#text.tokenCount);
    }
    if (this.#text) answer.text = this.#text.text;
    return piece;
  }

  /** Takes away what lies behind the beginning of a stop text. */
  #cutTo(count: number): void {
    this.answer.finishReason = "stop"; // also where the last character of all completed the stop text
    for (const list of [this.answer.tokens, this.answer.logprobs, this.answer.topLogprobs]) {
      if (list) list.length = count;
    }
  }
}
