/** Text of many rows on one terminal, as it comes. */

import type { Step } from "../engine/generate.ts";

interface Row {
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
  constructor(prompts: readonly string[], write: (text: string) => void) {
    this.#rows = prompts.map((prompt) => ({ waiting: prompt, ended: false }));
    this.#write = write;
  }

  /** Takes in a step: a row without a token in it had ended. */
  add({ tokens, texts }: Pick<Step, "tokens" | "texts">): void {
    for (const [i, row] of this.#rows.entries()) {
      if (tokens[i] === null) end(row);
      else row.waiting += texts[i];
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
  if (!row.ended) row.waiting += "\n";
  row.ended = true;
}
