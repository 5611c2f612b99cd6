import assert from "node:assert/strict";
import { AnswerText } from "../lib/engine/answer_text.ts";
import { checkStopTexts, StopFilter } from "../lib/engine/stop_texts.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import { seededRandom } from "../lib/util/random.ts";
import { randomTokens, textOf } from "./_support/byte_tokens.ts";

const tokenizer = await AutoTokenizer.fromPretrained("models/small");

interface Case {
  text: string;
  stops: string[];
  random: () => number;
}

/** Few different characters, so that stop texts overlap with each other and themselves; 🚌 and 🚀 share a UTF-16 unit. */
function* randomCases(seed: number, count: number): Generator<Case> {
  const random = seededRandom(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const alphabets = ["ab", "abc ", "🚌🚀", "é🚌a\n"].map((text) => [...text]);
  for (let i = 0; i < count; i++) {
    const alphabet = alphabets[below(alphabets.length)];
    const word = (length: number) => Array.from({ length }, () => alphabet[below(alphabet.length)]).join("");
    const longest = 1 + below(8);
    const stops = Array.from({ length: 1 + below(4) }, () => word(1 + below(longest)));
    yield { text: word(below(60)), stops, random };
  }
}

/** Where the first stop text is complete after `from`, and which it is: by its definition, without any state. */
function firstStop(text: string, stops: readonly string[], from = 0): { end: number; stop: string } | undefined {
  for (let end = from + 1; end <= text.length; end++) {
    const ended = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length);
    if (ended.length) return { end, stop: ended[0] };
  }
}

/** The longest end of `text` that begins a stop text but is not one. */
function heldBack(text: string, stops: readonly string[]): number {
  const begins = (end: string) => stops.some((stop) => stop.startsWith(end) && stop !== end);
  for (let length = text.length; length > 0; length--) if (begins(text.slice(-length))) return length;
  return 0;
}

function randomPieces(text: string, random: () => number): string[] {
  const pieces: string[] = [], characters = [...text];
  while (characters.length) pieces.push(characters.splice(0, Math.floor(random() * 5)).join(""));
  return pieces;
}

/** How often `filter`, fed in pieces, gives what the definition says; also right after each piece. */
function countRight(make: (stops: readonly string[]) => Pick<StopFilter, "push" | "end" | "stopText">, count: number) {
  let right = 0, stopped = 0;
  for (const { text, stops, random } of randomCases(1, count)) {
    const expected = firstStop(text, stops);
    const filter = make(stops);
    let fed = "", shown = "", exact = true;
    for (const piece of randomPieces(text, random)) {
      fed += piece;
      shown += filter.push(piece);
      if (filter.stopText !== undefined) break;
      exact &&= shown.length === fed.length - heldBack(fed, stops) && shown.isWellFormed();
    }
    shown += filter.end();
    exact &&= shown === (expected ? text.slice(0, expected.end - expected.stop.length) : text);
    exact &&= filter.stopText === expected?.stop;
    // It ends with the piece that completes the stop text, not with a later one.
    exact &&= !expected || firstStop(fed, stops) !== undefined;
    right += Number(exact);
    stopped += Number(expected !== undefined);
  }
  return { right, stopped };
}

Deno.test("a filter passes the text before the first stop text, whatever the pieces, and holds back just what may be one", () => {
  const { right, stopped } = countRight((stops) => new StopFilter(stops), 5000);
  assert.ok(stopped > 1500 && stopped < 4500, `${stopped} of 5,000 texts have a stop text`);
  assert.equal(right, 5000);
});

Deno.test("control: filters that look at each piece alone, or hold back a fixed length, are found out", () => {
  const searching = (hold: (text: string, stops: readonly string[]) => number) => (stops: readonly string[]) => ({
    held: "",
    stopText: undefined as string | undefined,
    push(piece: string) {
      const text = this.held + piece, found = firstStop(text, stops);
      this.stopText = found?.stop;
      const passed = found ? found.end - found.stop.length : Math.max(0, text.length - hold(text, stops));
      this.held = found ? "" : text.slice(passed);
      return text.slice(0, passed);
    },
    end() {
      return this.held;
    },
  });
  assert.equal(countRight(searching(heldBack), 1000).right, 1000); // the harness itself accepts a right one
  assert.ok(countRight(searching(() => 0), 1000).right < 700);
  const longest = (_: string, stops: readonly string[]) => Math.max(...stops.map((stop) => stop.length)) - 1;
  assert.ok(countRight(searching(longest), 1000).right < 700);
});

Deno.test("an answer ends before its first stop text, and with the right token, wherever the tokens' borders lie", () => {
  let inside = 0;
  for (const { text, stops, random } of randomCases(2, 3000)) {
    const ids = randomTokens(text, random);
    const minTokens = random() < 0.5 ? 0 : Math.floor(random() * 10);
    const complete = (count: number) => textOf(ids, count, false).length;
    const expected = ids.length > minTokens ? firstStop(text, stops, complete(minTokens)) : undefined;
    const answer = new AnswerText(tokenizer, { stop: stops, minTokens });
    let shown = "", taken = 0;
    while (taken < ids.length && answer.stopText === undefined) shown += answer.push(ids[taken++]);
    shown += answer.end();

    assert.equal(shown, expected ? text.slice(0, expected.end - expected.stop.length) : text);
    assert.equal(answer.text, shown);
    assert.equal(answer.stopText, expected?.stop);
    if (expected) assert.ok(complete(taken) >= expected.end && complete(taken - 1) < expected.end, `${taken} tokens`);
    else assert.equal(answer.tokenCount, ids.length);
    const kept = answer.tokenCount; // the fewest tokens with all of the text
    if (expected) assert.ok(complete(kept) >= shown.length && (kept === 0 || complete(kept - 1) < shown.length));
    inside += Number(complete(kept) > shown.length);
    if (expected) assert.equal(answer.push(ids[0]) + answer.end(), "", "nothing passes after a stop text");
  }
  assert.ok(inside > 100, `${inside} answers end inside a token`);
});

Deno.test("text that was held back is shown when the answer ends without a stop text", () => {
  const answer = new AnswerText(tokenizer, { stop: "\n\nQ:" });
  const ids = tokenizer.encode("A\n\nQ");
  assert.equal(ids.map((id) => answer.push(id)).join(""), "A");
  assert.equal(answer.end(), "\n\nQ");
  assert.deepEqual([answer.stopText, answer.tokenCount, answer.end()], [undefined, ids.length, ""]);
});

Deno.test("an answer that breaks off inside a character ends in U+FFFD, which may be a stop text too", () => {
  const [half] = tokenizer.encode("🚌"), [a] = tokenizer.encode("A");
  for (const [stop, text] of [["B", "A\ufffd"], ["\ufffd", "A"]]) {
    const answer = new AnswerText(tokenizer, { stop });
    assert.equal(answer.push(a) + answer.push(half), "A");
    answer.end();
    assert.deepEqual([answer.text, answer.stopText], [text, text === "A" ? stop : undefined]);
  }
});

Deno.test("a long stop text is found after a million characters that nearly complete it", () => {
  const stop = "a".repeat(1000) + "b"; // each further `a` falls back by one
  const filter = new StopFilter([stop]);
  const piece = "a".repeat(1000);
  for (let i = 0; i < 1000; i++) assert.equal(filter.push(piece).length, i ? 1000 : 0);
  assert.equal(filter.push("b"), "");
  assert.equal(filter.stopText, stop);
});

Deno.test("stop texts are refused when they are empty, no text, or half a character", () => {
  assert.deepEqual([checkStopTexts(), checkStopTexts("a"), checkStopTexts(["a", "🚌"])], [[], ["a"], ["a", "🚌"]]);
  assert.throws(() => checkStopTexts(["a", ""]), /^RangeError: Cannot use stop text 1: it is empty/);
  assert.throws(() => checkStopTexts(""), /^RangeError: Cannot use the stop text: it is empty/);
  assert.throws(() => checkStopTexts(["\ud83d"]), /stop text 0, "\\ud83d": it has half a character/);
  const check = checkStopTexts as (stop: unknown) => void;
  assert.throws(() => check([1]), /^TypeError: Cannot use stop text 0: it is of type number/);
  assert.throws(() => check(3), /^TypeError: Cannot stop at number: pass a string or an array of strings/);
});
