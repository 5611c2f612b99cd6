/** Stop texts: an answer ends before the first of them that its text comes to hold, wherever the tokens' borders lie. */

/**
 * Checks the stop texts that somebody asks for. Throws a TypeError for what is not text, and a RangeError for an empty
 * one or half a character.
 */
export function checkStopTexts(stop: string | readonly string[] = []): readonly string[] {
  const texts = typeof stop === "string" ? [stop] : stop;
  if (!Array.isArray(texts)) {
    throw new TypeError(`Cannot stop at ${typeof stop}: pass a string or an array of strings.`);
  }
  for (const [i, text] of texts.entries()) {
    const name = typeof stop === "string" ? "the stop text" : `stop text ${i}`;
    if (typeof text !== "string") {
      throw new TypeError(`Cannot use ${name}: it is of type ${typeof text}. Pass strings.`);
    }
    if (text === "") {
      throw new RangeError(
        `Cannot use ${name}: it is empty, so every answer would end before it begins. Leave it out.`,
      );
    }
    if (!text.isWellFormed()) {
      throw new RangeError(`Cannot use ${name}, ${JSON.stringify(text)}: it has half a character. Pass whole ones.`);
    }
  }
  return texts;
}

/**
 * Lets text through up to the first stop text. What may become a stop text is held back until it is clear: exactly the
 * longest end of the text so far that begins a stop text. The first to be complete counts, and of those that are complete
 * with the same character the longest; so the result depends on the text alone, not on the pieces that it comes in.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { StopFilter } from "./stop_texts.ts";
 *
 * const filter = new StopFilter(["\n\n", "END"]);
 * assert.deepEqual(["one\n", "two E", "ND three"].map((piece) => filter.push(piece)), ["one", "\ntwo ", ""]);
 * assert.equal(filter.stopText, "END");
 * ```
 */
export class StopFilter {
  /** The stop text that ended the text, if one did. From then on nothing passes. */
  stopText?: string;
  readonly #stops: Stop[];
  #held = "";

  /** `stops` as {@link checkStopTexts} gives them. */
  constructor(stops: readonly string[]) {
    this.#stops = stops.map((text) => ({ text, borders: bordersOf(text), matched: 0 }));
  }

  /** Takes the next piece and gives what passes now. Where `mayStop` is false, no stop text ends. */
  push(piece: string, mayStop = true): string {
    if (this.stopText !== undefined) return "";
    const text = this.#held + piece;
    for (let i = this.#held.length; i < text.length; i++) {
      const ended = this.#advance(text[i]);
      if (!ended || !mayStop) continue;
      this.stopText = ended;
      this.#held = "";
      return text.slice(0, i + 1 - ended.length);
    }
    const held = this.#stops.reduce((most, { matched }) => Math.max(most, matched), 0);
    this.#held = text.slice(text.length - held);
    return text.slice(0, text.length - held);
  }

  /** What was held back, once no more text will come. */
  end(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  /** Notes how much of each stop text the text now ends with; gives the longest one that is complete. */
  #advance(unit: string): string {
    let ended = "";
    for (const stop of this.#stops) {
      while (stop.matched > 0 && stop.text[stop.matched] !== unit) stop.matched = stop.borders[stop.matched - 1];
      if (stop.text[stop.matched] === unit) stop.matched++;
      if (stop.matched < stop.text.length) continue;
      if (stop.text.length > ended.length) ended = stop.text;
      stop.matched = stop.borders[stop.matched - 1];
    }
    return ended;
  }
}

/** A stop text, and how many of its UTF-16 units the text so far ends with. */
interface Stop {
  readonly text: string;
  readonly borders: readonly number[];
  matched: number;
}

/** For each beginning of `text`, the length of the longest shorter beginning that it also ends with (Knuth, Morris, Pratt). */
function bordersOf(text: string): number[] {
  const borders = [0];
  for (let i = 1, length = 0; i < text.length; i++) {
    while (length > 0 && text[length] !== text[i]) length = borders[length - 1];
    if (text[length] === text[i]) length++;
    borders.push(length);
  }
  return borders;
}
