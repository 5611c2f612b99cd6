import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { useBackend } from "../lib/backend/select.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { generateBatch } from "../lib/engine/generate.ts";
import { loadGPT2 } from "../lib/gpt2/load.ts";
import { predict } from "../lib/bench/perplexity.ts";
import { quantizeModel } from "../lib/gpt2/quantize.ts";
import { seededRandom } from "../lib/util/random.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import golden from "./fixtures/small_golden.json" with { type: "json" };
import { assertClose, distance, logitsOf } from "./_support/logits.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const backend = await useBackend("tensorflow");
const full = Deno.env.has("OMNIBUS_FULL");
const lowPrecision = backend.dtypes.filter((dtype) => dtype !== "float32");

/** How far a low-precision model's logits may be from float32's, as a share of their spread; and its perplexity, as a share. */
const TOLERANCE = { int8: { logits: 0.1, perplexity: 0.01 }, bfloat16: { logits: 0.05, perplexity: 0.002 } };

/** A prompt's answer must not depend on its companions: the same sums, so nearly the same numbers. */
const SAME = { int8: 0.02, bfloat16: 0.02 };

Deno.test("a prompt's logits are the same in any batch as alone, with low-precision weights too", async () => {
  for (const dtype of lowPrecision) {
    using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend, dtype });
    using wide = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
    const random = seededRandom(1), upTo = (n: number) => 1 + Math.floor(random() * n);
    for (let batch = 0; batch < 8; batch++) {
      const rows = Array.from({ length: upTo(16) }, () => Array.from({ length: upTo(60) }, () => upTo(97) - 1));
      const together = await logitsOf(model, rows), exact = await logitsOf(wide, rows);
      for (const [i, row] of rows.entries()) {
        const spread = Math.max(...exact[i]) - Math.min(...exact[i]);
        assertClose(
          together[i],
          (await logitsOf(model, [row]))[0],
          SAME[dtype] * spread,
          `${dtype}, row ${i} of ${rows.length}`,
        );
        assertClose(together[i], exact[i], TOLERANCE[dtype].logits * spread, `${dtype} against float32, row ${i}`);
        assert.ok(distance(together[i], exact[i]) > 1e-6, `${dtype} was really rounded`);
      }
    }
  }
});

Deno.test({
  name: "int8 steps round a row alone as they do in company, however many rows there are",
  ignore: !lowPrecision.includes("int8"),
  fn: roundsAlike,
});

async function roundsAlike(): Promise<void> {
  using model = await loadGPT2("models/small", { backend, dtype: "int8" });
  const tokenizer = await AutoTokenizer.fromPretrained("models/small"), random = seededRandom(3);
  const prompts = Array.from(
    { length: 12 },
    () => Array.from({ length: 7 }, () => Math.floor(random() * tokenizer.vocabSize)),
  );
  const answers = (rows: number[][]) =>
    generateBatch(model, padBatch(rows, { padTokenId: 0 }), { maxTokens: 64, ignoreEos: true, logprobs: true });
  const together = await answers(prompts);
  for (const [i, prompt] of prompts.entries()) {
    const [alone] = await answers([prompt]);
    assert.deepEqual(alone.tokens, together[i].tokens, `prompt ${i}`);
    assertClose(alone.logprobs!, together[i].logprobs!, 2e-5, `prompt ${i}`);
  }
}

Deno.test({
  name: "an int8 row's logits are the same among companions of any length as alone",
  ignore: !backend.dtypes.includes("int8"),
  async fn() {
    using model = await loadGPT2("models/small", { backend, dtype: "int8" });
    const { layerNorm } = backend.ops; // a row's norm that depends on the others: what must not be
    const wrong = (x: tf.Tensor2D, ...rest: [tf.Tensor1D, tf.Tensor1D, number]) =>
      tf.add(layerNorm(x, ...rest), tf.mul(tf.mean(x), 1e-3)) as tf.Tensor2D;
    const ops = { ...backend.ops, layerNorm: wrong };
    using control = await loadGPT2("models/small", {
      backend: Object.create(backend, { ops: { value: ops } }),
      dtype: "int8",
    });
    const random = seededRandom(5), upTo = (n: number) => 1 + Math.floor(random() * n), count = full ? 500 : 40;
    const text = () => Array.from({ length: upTo(200) }, () => upTo(model.config.vocab_size) - 1);
    let worst = 0, worstOfControl = 0;
    for (let i = 0; i < count; i++) {
      const row = text(), rows = [text(), row, text()];
      const [[alone], [, together]] = [await logitsOf(model, [row]), await logitsOf(model, rows)];
      worst = Math.max(worst, distance(alone, together));
      if (i >= 3) continue;
      worstOfControl = Math.max(
        worstOfControl,
        distance((await logitsOf(control, [row]))[0], (await logitsOf(control, rows))[1]),
      );
    }
    console.log(`int8, ${count} rows of 1 to 200 tokens: logits in company at most ${worst} from those alone`);
    assert.ok(worst < 1e-3, `${worst}`);
    assert.ok(worstOfControl > 1e-3, `control: ${worstOfControl}`);
  },
});

Deno.test("predict() has the perplexity and the first choices of the logits after each beginning", async () => {
  using model = await loadGPT2(await writeTinyModel({ seed: 1 }), { backend });
  const rows = [[5, 17, 80, 3, 44, 9], [60, 2, 2, 31, 7, 96]];
  const logits = await logitsOf(model, rows.flatMap((row) => row.slice(1).map((_, i) => row.slice(0, i + 1))));
  const share = (row: number[], id: number) =>
    Math.exp(row[id]) / row.map(Math.exp).reduce((sum, value) => sum + value, 0);
  const product = rows.flatMap((row) => row.slice(1)).reduce((all, id, i) => all * share(logits[i], id), 1);
  const { perplexity, choices } = await predict(model, rows);
  assertClose([perplexity], [product ** (-1 / 10)], 1e-3, "perplexity");
  assert.deepEqual(choices.flat(), logits.map((row) => row.indexOf(Math.max(...row))));
  assert.deepEqual(choices.map(({ length }) => length), [5, 5]);
});

for (const dtype of backend.dtypes) {
  Deno.test({
    name: `${dtype}: a row generates alone what it generates in company, and with the same probabilities`,
    ignore: / on the GPU/.test(backend.description), // one row's products are other kernels there
    async fn() {
      const tokenizer = await AutoTokenizer.fromPretrained("models/small");
      using model = await loadGPT2("models/small", { backend, dtype });
      const starts = (await Deno.readTextFile("models/small/heldout/moby.txt")).match(/[A-Z][a-z]+ [a-z]+ [a-z]+/g)!;
      const prompts = starts.slice(0, 12).map((text) => tokenizer.encode(text));
      const generate = (rows: number[][]) =>
        generateBatch(model, padBatch(rows, { padTokenId: 0 }), { maxTokens: 24, logprobs: true });
      const together = await generate(prompts);
      for (const [i, prompt] of prompts.entries()) {
        const [alone] = await generate([prompt]);
        assert.deepEqual(together[i].tokens, alone.tokens);
        assertClose(together[i].logprobs!, alone.logprobs!, 1e-4, `answer ${i}`);
      }
    },
  });
}

Deno.test("low-precision weights cost little: perplexity on held-out text, and agreement of the first choices", async () => {
  const tokenizer = await AutoTokenizer.fromPretrained("models/small");
  const window = 128, perText = 4;
  const rows: number[][] = [];
  for (const name of ["austen", "kjv", "moby", "sotu"]) {
    const tokens = tokenizer.encode(await Deno.readTextFile(`models/small/heldout/${name}.txt`));
    for (let i = 0; i < perText; i++) rows.push(tokens.slice(i * window, (i + 1) * window));
  }
  using wide = await loadGPT2("models/small", { backend });
  const exact = await predict(wide, rows);
  assert.ok(exact.perplexity > 50 && exact.perplexity < 110, `float32 has perplexity ${exact.perplexity}`);
  const parent = await Deno.makeTempDir();
  for (
    const [dtype, from] of lowPrecision.flatMap((dtype) => [[dtype, "made so"], [dtype, "from such a file"]] as const)
  ) {
    const file = `${parent}/${dtype}`;
    if (from === "from such a file") await quantizeModel("models/small", file, dtype);
    using model = await loadGPT2(from === "made so" ? "models/small" : file, { backend, dtype });
    const { perplexity, choices } = await predict(model, rows);
    const all = choices.flat(), agreed = all.filter((id, i) => id === exact.choices.flat()[i]).length / all.length;
    const loss = perplexity / exact.perplexity - 1;
    console.log(
      `${dtype}, ${from}: perplexity ${perplexity.toFixed(3)}, float32 ${exact.perplexity.toFixed(3)} (${
        (100 * loss).toFixed(2)
      }%); first choices agree ${(100 * agreed).toFixed(1)}%`,
    );
    assert.ok(Math.abs(loss) <= TOLERANCE[dtype].perplexity, `${dtype}, ${from}`);
    assert.ok(agreed > 0.95, `${dtype}, ${from}`);
  }
  await Deno.remove(parent, { recursive: true });
});

Deno.test("captured steps with low-precision weights give what they give op by op", async () => {
  const inputs = padBatch(golden.map((row) => row.promptTokens), { padTokenId: 50256 });
  const options = { maxTokens: 8, ignoreEos: true, logprobs: true };
  for (const dtype of lowPrecision) {
    using captured = await loadGPT2("models/small", { backend, dtype });
    using plain = await loadGPT2("models/small", { backend: { ...backend, capture: undefined }, dtype });
    const a = await generateBatch(captured, inputs, options), b = await generateBatch(plain, inputs, options);
    const first = (rows: typeof a) => rows.map((row) => row.logprobs![0]);
    assertClose(first(a), first(b), 0.05, dtype);
    const same = a.filter((row, i) => row.tokens[0] === b[i].tokens[0]).length;
    assert.ok(same >= a.length - 1, `${dtype}: ${same} of ${a.length} rows begin with the same token`);
  }
});

Deno.test("a model with low-precision weights frees everything", async () => {
  for (const dtype of lowPrecision) {
    const before = tf.memory().numTensors;
    {
      using model = await loadGPT2(await writeTinyModel({ seed: 5 }), { backend, dtype });
      await generateBatch(model, { inputIds: [[1, 2]], attentionMask: [[1, 1]] }, { maxTokens: 3 });
    }
    assert.equal(tf.memory().numTensors, before);
  }
});
