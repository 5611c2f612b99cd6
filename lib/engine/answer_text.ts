/** One answer as text, while its tokens come: whole characters, up to a stop text. */

import type { DecodeOptions, Tokenizer } from "../tokenizer/byte_pair.ts";
import type { TextStream } from "../tokenizer/text_stream.ts";
import { checkStopTexts, StopFilter } from "./stop_texts.ts";

/** How an answer's tokens become its text. */
export interface AnswerTextOptions extends DecodeOptions {
  /** Texts that end the answer; they are no part of it. Default: none. */
  stop?: string | readonly string[];
  /** No stop text ends within the first so many tokens. Default 0. */
  minTokens?: number;
}

/**
 * Takes an answer's tokens and gives its text piece by piece: never half a character, nothing of a stop text.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { AutoTokenizer } from "../mod.ts";
 * import { AnswerText } from "./answer_text.ts";
 *
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const answer = new AnswerText(tokenizer, { stop: ["own ", "fox"] });
 * for (const id of tokenizer.encode("The quick brown fox jumped")) {
 *   answer.push(id);
 *   if (answer.stopText !== undefined) break;
 * }
 * answer.end();
 * assert.equal(answer.text, "The quick br");
 * assert.equal(answer.stopText, "own ");
 * assert.equal(tokenizer.decode(tokenizer.encode("The quick brown fox").slice(0, answer.tokenCount)), "The quick brown");
 * ```
 */
export class AnswerText {
  /** All that {@link AnswerText.push} and {@link AnswerText.end} gave. */
  text = "";
  readonly #stream: TextStream;
  readonly #filter: StopFilter;
  readonly #minTokens: number;
  /** For each token, the length of the text that is complete with it, stop texts included. */
  readonly #lengths: number[] = [];

  /** Throws as {@link checkStopTexts} does. */
  constructor(tokenizer: Tokenizer, { stop, minTokens = 0, ...decoding }: AnswerTextOptions = {}) {
    this.#stream = tokenizer.stream(decoding);
    this.#filter = new StopFilter(checkStopTexts(stop));
    this.#minTokens = minTokens;
  }

  /** Takes the next token and gives the text that is now certain, maybe none. */
  push(id: number): string {
    const piece = this.#stream.push(id);
    this.#lengths.push((this.#lengths.at(-1) ?? 0) + piece.length);
    return this.#emit(this.#filter.push(piece, this.#lengths.length > this.#minTokens));
  }

  /** The rest, after the last token: what was held back, and U+FFFD for a character that was never completed. */
  end(): string {
    const mayStop = this.#lengths.length > this.#minTokens;
    return this.#emit(this.#filter.push(this.#stream.end(), mayStop) + this.#filter.end());
  }

  /** The stop text that ended the answer, if one did: its finish reason is then `stop`, and it wants no more tokens. */
  get stopText(): string | undefined {
    return this.#filter.stopText;
  }

  /**
   * How many tokens the answer has: all that were pushed, or, after a stop text, the fewest whose text holds the
   * answer's. The last of them may reach into the stop text.
   */
  get tokenCount(): number {
    if (this.stopText === undefined) return this.#lengths.length;
    if (this.text === "") return 0;
    const last = this.#lengths.findIndex((length) => length >= this.text.length);
    return last < 0 ? this.#lengths.length : last + 1;
  }

  #emit(text: string): string {
    this.text += text;
    return text;
  }
}
