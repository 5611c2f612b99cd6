import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { padBatch, type PaddingSide, positionIds } from "../lib/tokenizer/batch.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { PlainGPT2 } from "../lib/gpt2/plain.ts";
import { seededRandom } from "../lib/util/random.ts";
import golden from "./fixtures/small_golden.json" with { type: "json" };
import { assertClose, distance, logitsOf } from "./_support/logits.ts";
import { TINY, writeTinyModel } from "./_support/tiny_models.ts";

const TOLERANCE = 2e-4;
const backend = await useBackend("tensorflow");

/** What the plain model gets of a batch: the truth, or with `hidden` something else. */
function inputsOf(rows: readonly number[][], side: PaddingSide = "left", hidden = -1e9) {
  const { inputIds, attentionMask } = padBatch(rows, { padTokenId: 0, side });
  const mask = attentionMask.map((real) => real.map((_, i) => real.map((key, j) => key && j <= i ? 0 : hidden)));
  return { inputIds, positionIds: positionIds(attentionMask), mask };
}

Deno.test("the plain model and the engine give the same logits, with padding on either side", async () => {
  const random = seededRandom(7), upTo = (n: number) => 1 + Math.floor(random() * n);
  for (
    const config of [{}, { n_embd: 40, n_layer: 3, n_head: 5, n_inner: 64, scale_attn_by_inverse_layer_idx: true }]
  ) {
    const folder = await writeTinyModel({ seed: 3, config });
    using engine = await loadGPT2(folder, { backend });
    using plain = await PlainGPT2.fromPretrained(folder);
    for (let batch = 0; batch < 8; batch++) {
      const rows = Array.from({ length: upTo(6) }, () => Array.from({ length: upTo(30) }, () => upTo(97) - 1));
      const expected = await logitsOf(engine, rows);
      for (const side of ["left", "right"] as const) {
        const { logits } = await plain.forward(inputsOf(rows, side));
        for (const [i, row] of rows.entries()) {
          const last = side === "left" ? logits[i].length - 1 : row.length - 1;
          assertClose([...logits[i][last]], expected[i], TOLERANCE, `${side}, row ${i} of ${rows.length}`);
        }
      }
    }
  }
});

Deno.test("control: with everything in sight, the plain model's logits differ", async () => {
  const folder = await writeTinyModel({ seed: 3 }), rows = [[5, 6, 7, 8, 9], [10, 11]];
  using engine = await loadGPT2(folder, { backend });
  using plain = await PlainGPT2.fromPretrained(folder);
  const { logits } = await plain.forward(inputsOf(rows, "left", 0));
  assert.ok(distance([...logits[1][4]], (await logitsOf(engine, rows))[1]) > 100 * TOLERANCE);
});

Deno.test("attention weights have the model's shape, sum to 1, and are 0 where the mask says so", async () => {
  using plain = await PlainGPT2.fromPretrained(await writeTinyModel({ seed: 3 }));
  const { attentions } = await plain.forward(inputsOf([[5, 6, 7, 8, 9], [10, 11]]));
  assert.deepEqual([attentions.length, attentions[0].length, attentions[0][0].length], [TINY.n_layer, 2, TINY.n_head]);
  for (const head of attentions.flat(2)) {
    for (const line of head) assert.ok(Math.abs(line.reduce((a, b) => a + b) - 1) < 1e-5);
  }
  for (const head of attentions.map((layer) => layer[1]).flat()) {
    for (const [query, line] of head.slice(3).entries()) { // behind the padding
      line.forEach((weight, key) => assert.equal(weight > 0, key >= 3 && key <= query + 3));
    }
  }
});

Deno.test("the plain model says what the reference says, and frees what it makes", async () => {
  const before = tf.memory().numTensors;
  {
    using plain = await PlainGPT2.fromPretrained("models/small");
    for (const { promptTokens, tokens, prefill } of golden.slice(0, 3)) {
      const { logits } = await plain.forward(inputsOf([promptTokens]));
      const last = logits[0].at(-1)!;
      assert.equal(last.indexOf(Math.max(...last)), tokens[0]);
      assertClose([...last.slice(0, 16)], prefill.first16, 2e-3, "the first logits");
    }
  }
  assert.equal(tf.memory().numTensors, before);
});
