import assert from "node:assert/strict";
import { type Batch, padBatch, paddingShare, positionIds, realTokens } from "../lib/tokenizer/batch.ts";
import { seededRandom } from "../lib/util/random.ts";

const vocabSize = 50257;

Deno.test("realTokens() gets back what padBatch() padded, on either side", () => {
  const random = seededRandom(1);
  for (let round = 0; round < 200; round++) {
    const rows = Array.from(
      { length: 1 + Math.floor(random() * 8) },
      () => Array.from({ length: 1 + Math.floor(random() * 20) }, () => Math.floor(random() * vocabSize)),
    );
    for (const side of ["left", "right"] as const) {
      const batch = padBatch(rows, { padTokenId: 50256, side });
      assert.deepEqual(realTokens(batch, { vocabSize }), rows);
      assert.equal(new Set([...batch.inputIds, ...batch.attentionMask].map((row) => row.length)).size, 1);
      const tokens = rows.flat().length;
      assert.ok(Math.abs(1 - paddingShare(batch) - tokens / batch.inputIds.flat().length) < 1e-12);
    }
  }
});

Deno.test("realTokens() keeps real tokens that look like padding, and drops padding that looks real", () => {
  const batch = { inputIds: [[50256, 50256, 50256], [5, 6, 50256]], attentionMask: [[0, 1, 1], [0, 1, 0]] };
  assert.deepEqual(realTokens(batch, { vocabSize }), [[50256, 50256], [6]]);
});

Deno.test("realTokens() does not look at ids under the mask's zeros, and takes rows of different lengths", () => {
  const batch = { inputIds: [[-100, 7], [1, 2, 3]], attentionMask: [[0, 1], [1, 1, 1]] };
  const before = structuredClone(batch);
  assert.deepEqual(realTokens(batch, { vocabSize }), [[7], [1, 2, 3]]);
  assert.deepEqual(batch, before);
});

Deno.test("realTokens() says what is wrong with a batch", () => {
  const cases: [unknown, unknown, RegExp][] = [
    [[], [], /batch without rows: pass at least one prompt/],
    [[[1]], [[1], [1]], /inputIds has 1 rows and attentionMask has 2/],
    [[[1, 2]], [[1]], /row 0: inputIds has 2 tokens and attentionMask has 1/],
    [[[1, 2]], [[1, 2]], /attentionMask\[0\]\[1\]: it is 2\. Use 1 for a token, 0 for padding/],
    [[[1, 2]], [[1, true]], /attentionMask\[0\]\[1\]: it is true/],
    [[[1], [1, 50257]], [[1], [1, 1]], /inputIds\[1\]\[1\]: it is 50257\. .* from 0 to 50256/],
    [[[-1]], [[1]], /inputIds\[0\]\[0\]: it is -1/],
    [[[0.5]], [[1]], /it is 0\.5/],
    [[["1"]], [[1]], /inputIds\[0\]\[0\]: it is 1/],
    [[[1], [2, 3]], [[1], [0, 0]], /row 1: it has no real token/],
    [[[]], [[]], /row 0: it has no real token/],
    [[1, 2], [1, 1], /row 0: .* must hold an array/],
    [undefined, undefined, /needs the arrays inputIds and attentionMask/],
  ];
  for (const [inputIds, attentionMask, message] of cases) {
    assert.throws(() => realTokens({ inputIds, attentionMask } as Batch, { vocabSize }), message);
  }
});

Deno.test("positionIds() counts real tokens, from either side", () => {
  assert.deepEqual(positionIds([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]]), [[-1, -1, 0, 1], [0, 1, 1, 1], [
    0,
    1,
    2,
    3,
  ]]);
});

Deno.test("padBatch() refuses a side that is neither left nor right", () => {
  assert.throws(() => padBatch([[1]], { padTokenId: 0, side: "top" as "left" }), /side "top": use "left" or "right"/);
});

Deno.test("paddingShare() counts rows that differ in length as if padded, and an empty batch as no waste", () => {
  assert.equal(paddingShare({ inputIds: [[1, 2, 3, 4], [1]], attentionMask: [[1, 1, 1, 1], [1]] }), 3 / 8);
  assert.equal(paddingShare({ inputIds: [], attentionMask: [] }), 0);
});
