import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { generateBatch } from "../lib/engine/generate.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { nextTokenLogits, topTokens } from "../lib/engine/logits.ts";
import golden from "./fixtures/small_golden.json" with { type: "json" };
import { assertClose, distance } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const backend = await useBackend("tensorflow");
const small = await loadGPT2("models/small", { backend });
const tiny = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
const batchOf = (rows: number[][], side: "left" | "right" = "left") => padBatch(rows, { padTokenId: 50256, side });

Deno.test("logits of a prompt are the reference's, in any batch, padded on either side", async () => {
  for (const side of ["left", "right"] as const) {
    const logits = await nextTokenLogits(small, batchOf(golden.map(({ promptTokens }) => promptTokens), side));
    golden.forEach(({ prefill }, i) => {
      assertClose([...logits[i].slice(0, 16)], prefill.first16, 2e-3, `first logits of prompt ${i}`);
      assertClose(prefill.topTokens.map((id) => logits[i][id]), prefill.topLogits, 2e-3, `top logits of prompt ${i}`);
    });
  }
});

Deno.test("the likeliest token and its probability are those that generation chooses", async () => {
  const inputs = padBatch([[5, 6, 7], [8], [9, 10]], { padTokenId: 0 });
  const logits = await nextTokenLogits(tiny, inputs);
  const answers = await generateBatch(tiny, inputs, { maxTokens: 1, logprobs: true });
  answers.forEach(({ tokens, logprobs }, row) => {
    const [best] = topTokens(logits[row], 1);
    assert.equal(best.id, tokens[0]);
    assertClose([Math.log(best.probability)], logprobs!, 1e-4, `row ${row}`);
  });
  assert.ok(distance([...logits[0]], [...logits[1]]) > 0.01, "different prompts have different logits");
});

Deno.test("asking for logits leaves nothing behind, and refuses what the model cannot hold", async () => {
  const before = tf.memory().numTensors;
  await nextTokenLogits(tiny, { inputIds: [[1, 2]], attentionMask: [[1, 1]] });
  const long = (length: number) => padBatch([Array(length).fill(1)], { padTokenId: 0 });
  await nextTokenLogits(tiny, long(96)); // just full
  await assert.rejects(nextTokenLogits(tiny, long(97)), {
    name: "RangeError",
    message: "Cannot use a prompt of 97 tokens: the model holds 96. Shorten it.",
  });
  assert.equal(tf.memory().numTensors, before);
});

Deno.test("top tokens are sorted, ties by id, and their probabilities make 1 however large the logits", () => {
  for (const shift of [0, 1000, -1000]) {
    const all = topTokens([1, 3, 2, 3].map((logit) => logit + shift), 10);
    assert.deepEqual(all.map(({ id }) => id), [1, 3, 2, 0]);
    assert.ok(Math.abs(all.reduce((sum, { probability }) => sum + probability, 0) - 1) < 1e-12);
    assert.ok(Math.abs(all[0].probability / all[2].probability - Math.E) < 1e-9);
  }
  assert.equal(topTokens(new Float32Array([1, 2, 3]), 2).length, 2);
});
