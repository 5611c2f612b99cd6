import assert from "node:assert/strict";
import { TextStream } from "../lib/tokenizer/text_stream.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import { seededRandom } from "../lib/util/random.ts";
import { textOf, TOKEN_BYTES } from "./_support/byte_tokens.ts";

const tokenizer = await AutoTokenizer.fromPretrained("models/small");
const END = 50256, UNKNOWN = 60_000;

/** Bytes of characters (ids below 256), whole tokens, special tokens, and ids that stand for none, in any order. */
function* randomIds(seed: number, count: number): Generator<number[]> {
  const random = seededRandom(seed);
  for (let i = 0; i < count; i++) {
    const bytes = random(); // the share of single bytes
    yield Array.from({ length: Math.floor(random() * 40) }, () => {
      if (random() < 0.05) return random() < 0.7 ? END : UNKNOWN;
      return Math.floor(random() * (random() < bytes ? 256 : END));
    });
  }
}

Deno.test("a stream's pieces, joined, are the text of all bytes at once, for any ids, and so is decode()", () => {
  for (const ids of randomIds(1, 3000)) {
    for (const skipSpecialTokens of [false, true]) {
      const expected = textOf(skipSpecialTokens ? ids.filter((id) => id !== END) : ids);
      const stream = tokenizer.stream({ skipSpecialTokens });
      const pieces = ids.map((id) => stream.push(id));
      assert.ok(pieces.every((piece) => piece.isWellFormed()));
      assert.equal(pieces.join("") + stream.end(), expected, `${ids}`);
      assert.equal(tokenizer.decode(ids, { skipSpecialTokens }), expected, `${ids}`);
    }
  }
});

Deno.test("a stream gives a character with the token that completes it: neither later, nor half of it before", () => {
  for (const ids of randomIds(2, 1000)) {
    const stream = tokenizer.stream();
    let shown = "";
    for (const [i, id] of ids.entries()) {
      shown += stream.push(id);
      // A special token ends a broken character at once; a byte that can't go on with it does, too.
      assert.equal(shown, textOf(ids, i + 1, false), `${ids.slice(0, i + 1)}`);
    }
  }
});

Deno.test("control: tokens decoded one by one are not the text of all of them", () => {
  const different = [...randomIds(1, 3000)].filter((ids) => ids.map((id) => textOf([id])).join("") !== textOf(ids));
  assert.ok(different.length > 500, `${different.length} of 3,000 cases have a character that is split`);
});

Deno.test("a stream reads each token once, and is ready for another text after its end", () => {
  let reads = 0;
  const stream = new TextStream((id) => {
    reads++;
    return Uint8Array.from(TOKEN_BYTES[id]);
  });
  const ids = tokenizer.encode("🚌 wie schön, 日本語! ".repeat(500));
  const text = ids.map((id) => stream.push(id)).join("");
  assert.equal(text, textOf(ids));
  assert.equal(reads, ids.length);
  const [half] = tokenizer.encode("🚌");
  assert.equal(stream.push(half) + stream.end() + stream.end(), "\ufffd");
  assert.equal(stream.push(tokenizer.encode("A")[0]) + stream.end(), "A");
});
