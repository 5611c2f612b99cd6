/** Tokens and their log-probabilities, as completions report them. */

import type { DecodeOptions, Tokenizer } from "../tokenizer/byte_pair.ts";
import type { TextStream } from "../tokenizer/text_stream.ts";

/** What the tokens of a text were worth: four lists as long as there are tokens. */
export interface CompletionLogprobs {
  /** Each token's text, or `bytes:\xe6\x97` where it is part of a character. */
  tokens: string[];
  /** Natural logarithms of their probabilities; null for the first token of a prompt. */
  token_logprobs: (number | null)[];
  /** The most likely tokens in its place, the likeliest first, and the token itself. */
  top_logprobs: (Record<string, number> | null)[];
  /** Where its text begins, in characters (Unicode code points) of the choice's text. */
  text_offset: number[];
}

/** A token in its place. */
export interface TokenScore {
  id: number;
  /** In characters. */
  offset: number;
  logprob?: number;
  top?: readonly { id: number; logprob: number }[];
}

/** Finds the place of each token of a text, one after another. */
export class TokenPlaces {
  readonly #stream: TextStream;

  /** Begins at a place, in characters. */
  constructor(tokenizer: Tokenizer, public offset = 0, decoding: DecodeOptions = {}) {
    this.#stream = tokenizer.stream(decoding);
  }

  /** Where the next token begins. What it does not complete belongs to the one that does. */
  next(id: number): number {
    const { offset } = this;
    this.offset += characters(this.#stream.push(id));
    return offset;
  }
}

/** How many Unicode code points a text has. */
export function characters(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** The four lists. */
export function logprobsOf(tokenizer: Tokenizer, scores: readonly TokenScore[]): CompletionLogprobs {
  const name = (id: number) => {
    const text = tokenizer.tokenToText(id);
    return /^(\\x[0-9A-F]{2})+$/.test(text) ? `bytes:${text.toLowerCase()}` : text;
  };
  return {
    tokens: scores.map(({ id }) => name(id)),
    token_logprobs: scores.map(({ logprob }) => logprob ?? null),
    top_logprobs: scores.map(({ id, logprob, top = [] }) =>
      logprob === undefined ? null : Object.fromEntries(
        [...top, { id, logprob }].map(({ id, logprob }) => [name(id), logprob]),
      )
    ),
    text_offset: scores.map(({ offset }) => offset),
  };
}
