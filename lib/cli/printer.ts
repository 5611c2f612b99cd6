/** Text of many rows on one terminal, as it comes. */

import type { TextStream } from "../tokenizer/text_stream.ts";
import type { Tokenizer } from "../tokenizer/byte_pair.ts";

interface Row {
  readonly stream: TextStream;
  /** Text that waits for the rows before this one. */
  waiting: string;
  ended: boolean;
}

/** Prints one row live, and then the next one, with what it has got by then. */
export class Printer {
  readonly #rows: Row[];
  readonly #write: (text: string) => void;
  #current = 0;

  /** @param prompts each row's prompt, which is printed before its text */
  constructor(prompts: readonly string[], tokenizer: Tokenizer, write: (text: string) => void) {
    this.#rows = prompts.map((prompt) => ({
      stream: tokenizer.stream({ skipSpecialTokens: true }),
      waiting: prompt,
      ended: false,
    }));
    this.#write = write;
  }

  /** Takes in a step: each row's new token, or null if it had ended. */
  add(tokens: readonly (number | null)[]): void {
    for (const [i, token] of tokens.entries()) {
      if (token === null) end(this.#rows[i]);
      else this.#rows[i].waiting += this.#rows[i].stream.push(token);
    }
    this.#print();
  }

  /** Prints what is left. */
  finish(): void {
    this.#rows.forEach(end);
    this.#print();
  }

  #print(): void {
    for (; this.#current < this.#rows.length; this.#current++) {
      const row = this.#rows[this.#current];
      this.#write(row.waiting);
      row.waiting = "";
      if (!row.ended) return;
    }
  }
}

function end(row: Row): void {
  if (!row.ended) row.waiting += `${row.stream.end()}\n`;
  row.ended = true;
}
