/** Text from the tokens of one answer, as they come. */

/**
 * Turns the tokens of one row into text as they come. A token may end inside a character: its bytes wait for the rest.
 * All that {@link TextStream.push} and a last {@link TextStream.end} return, joined, is what `decode` gives at once.
 * Each token is read once, however long the answer.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { AutoTokenizer } from "./tokenizer.ts";
 *
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const stream = tokenizer.stream();
 * assert.deepEqual(tokenizer.encode(" 🚌").map((id) => stream.push(id)), [" ", "", "🚌"]);
 * ```
 */
export class TextStream {
  readonly #utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #read: (id: number) => Uint8Array | string;

  /** `read` gives a token's bytes, or its text if it stands outside the byte-level vocabulary. */
  constructor(read: (id: number) => Uint8Array | string) {
    this.#read = read;
  }

  /** The text that the next token completes, maybe none. */
  push(id: number): string {
    const piece = this.#read(id);
    return typeof piece === "string" ? this.end() + piece : this.#utf8.decode(piece, { stream: true });
  }

  /** The rest, after the last token: U+FFFD for a character that was never completed. */
  end(): string {
    return this.#utf8.decode();
  }
}
