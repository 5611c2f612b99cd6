/** Text of many rows on one terminal, as it comes. */

import { print } from "../util/print.ts";
import type { TextStream, Tokenizer } from "../tokenizer/tokenizer.ts";

/** Prints one row live, and then the next one, with what it has got by then. */
export class Printer {
  readonly #waiting: { prompt: string; tokens: number[] }[];
  #current = -1;
  #text: TextStream;

  /** @param prompts each row's prompt, which is printed before its text */
  constructor(prompts: readonly string[], private readonly tokenizer: Tokenizer) {
    this.#waiting = prompts.map((prompt) => ({ prompt, tokens: [] }));
    this.#text = tokenizer.stream({ skipSpecialTokens: true });
  }

  /** Takes in a step: each row's new token, or null if it had ended. */
  add(tokens: readonly (number | null)[]): void {
    if (this.#current < 0) this.#startRow(); // not before there is something to print
    for (const [i, token] of tokens.entries()) {
      if (token === null) continue;
      if (i === this.#current) print(this.#text.push(token));
      else if (i > this.#current) this.#waiting[i].tokens.push(token);
    }
    while (tokens[this.#current] === null) this.#startRow();
  }

  /** Prints what is left. */
  finish(): void {
    while (this.#current < this.#waiting.length) this.#startRow();
  }

  #startRow(): void {
    if (this.#current >= 0) print(`${this.#text.flush()}\n`);
    const row = this.#waiting[++this.#current];
    if (!row) return;
    this.#text = this.tokenizer.stream({ skipSpecialTokens: true });
    print(row.prompt + row.tokens.map((token) => this.#text.push(token)).join(""));
  }
}
