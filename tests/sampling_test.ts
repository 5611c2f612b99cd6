/** The sampler: settings, random numbers, what the filters leave, and draws on every backend. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { fromTensors, type Logprobs, logprobs, sample, toTensors } from "../lib/backend/sampling.ts";
import { useBackend } from "../lib/backend/select.ts";
import { draw } from "../lib/engine/draw.ts";
import { probabilities } from "../lib/engine/probabilities.ts";
import { BANNED, EDIT } from "../lib/engine/sampled_row.ts";
import { samplerTensors, sampleTokens, settledIds } from "../lib/engine/sampler.ts";
import { type SamplingOptions, samplingSettings } from "../lib/engine/sampling.ts";
import { uniformOf } from "../lib/engine/uniform.ts";
import { tensorflowSamplingOps } from "../lib/tensorflow/sampling.ts";
import { openTensorflow } from "../lib/tensorflow/tfjs/backend.ts";
import { philox } from "../lib/util/philox.ts";
import { seededNormal, seededRandom } from "../lib/util/random.ts";
import { testOnEach, workingBackends } from "./_support/backends.ts";
import { chiSquareP } from "./_support/chi_square.ts";
import { assertClose } from "./_support/logits.ts";
import {
  logitParts,
  missedBy,
  randomRows,
  sampledRow,
  samplingOpsOf,
  settingsOf,
  type TestRow,
} from "./_support/sampling.ts";
import fixture from "./fixtures/sampling.json" with { type: "json" };

const backends = await workingBackends();

/** float32 sums of weights are this exact, as a share of them all. */
const TOLERANCE = 1e-5;

/** Draws from right distributions are farther off in one of so many tests; a wrong one is off by far more. */
const UNLIKELY = 1e-4;

Deno.test("Philox gives the known answers of its authors", () => {
  const full = 0xffffffff;
  assert.deepEqual(philox([0, 0, 0, 0], [0, 0]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  assert.deepEqual(philox([full, full, full, full], [full, full]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
  assert.deepEqual(
    philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  );
});

Deno.test("random numbers are uniform along tokens, answers and seeds, and those of neighbours have nothing in common", () => {
  const along: ((i: number) => number)[] = [
    (i) => uniformOf(1, 0, i),
    (i) => uniformOf(1, i, 0),
    (i) => uniformOf(i, 0, 0),
    (i) => uniformOf(i * 2 ** 32, 0, 0),
    (i) => uniformOf(-i, 3, 3),
  ];
  const size = 100_000, bins = 16;
  for (const uniform of along) {
    const pairs = new Float64Array(bins * bins);
    for (let i = 0; i < size; i++) {
      const [a, b] = [uniform(i), uniform(i + 1)];
      assert.ok(a >= 0 && a < 1 && Math.fround(a) === a);
      pairs[Math.floor(a * bins) * bins + Math.floor(b * bins)]++;
    }
    assert.ok(chiSquareP(pairs, new Float64Array(bins * bins).fill(bins ** -2)) > UNLIKELY);
  }
  const counts = new Float64Array(bins); // control: a generator that is worn out after 2¹⁵ numbers
  for (let i = 0; i < size; i++) counts[Math.floor(uniformOf(1, 0, i % 2 ** 9) * bins)]++;
  assert.ok(chiSquareP(counts, new Float64Array(bins).fill(1 / bins)) < UNLIKELY);
});

Deno.test("settings that cannot be are refused with the value and the range", () => {
  const wrong: [SamplingOptions, RegExp][] = [
    [{ temperature: -0.1 }, /temperature -0.1: it is a number from 0 to 100/],
    [{ temperature: NaN }, /temperature NaN/],
    [{ topK: 2.5 }, /topK 2.5: it is a whole number from 0/],
    [{ topK: -1 }, /topK -1/],
    [{ topP: 1.2 }, /topP 1.2: it is a number from 0 to 1/],
    [{ minP: -1 }, /minP -1/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty 0: it is a number from 0.01 to 100/],
    [{ presencePenalty: 3 }, /presencePenalty 3: it is a number from -2 to 2/],
    [{ frequencyPenalty: -3 }, /frequencyPenalty -3/],
    [{ minTokens: 1.5 }, /minTokens 1.5/],
    [{ seed: 2 ** 53 }, /seed 9007199254740992: it is a whole number/],
    [{ seed: 0.5 }, /seed 0.5/],
    [{ logitBias: { 50: 1 } }, /bias token 50: the model has tokens 0 to 49/],
    [{ logitBias: { 1.5: 1 } }, /bias token 1.5/],
    [{ logitBias: { 1: Infinity } }, /bias token 1 by Infinity: a bias is a number from -100 to 100/],
    [{ filterOrder: "random" as "vllm" }, /order "random": the orders are vllm and huggingface/],
    [{ topP: "0.5x" as unknown as number }, /topP 0.5x/],
  ];
  for (const [options, message] of wrong) {
    assert.throws(
      () => samplingSettings(options, { vocabSize: 50 }),
      (error: Error) => error instanceof RangeError && message.test(error.message),
    );
  }
  const { seed, ...rest } = samplingSettings({}, { vocabSize: 50 });
  assert.ok(Number.isSafeInteger(seed));
  assert.notEqual(samplingSettings({}, { vocabSize: 50 }).seed, seed, "a seed of one's own, which is reported");
  assert.deepEqual(rest, {
    temperature: 0,
    topK: 0,
    topP: 1,
    minP: 0,
    repetitionPenalty: 1,
    presencePenalty: 0,
    frequencyPenalty: 0,
    minTokens: 0,
    logitBias: {},
    filterOrder: "vllm",
  });
});

Deno.test("a row's edits, kept as tokens come, are those counted from its whole text", () => {
  const random = seededRandom(5), upTo = (n: number) => Math.floor(random() * n);
  for (let i = 0; i < 200; i++) {
    const [test] = randomRows(i, 1, 40), { options, prompt, endIds } = test, settings = { ...options };
    const row = sampledRow({ ...test, answer: [] }), answer: number[] = [];
    for (let step = 0; step < 40; step++) {
      const expected = new Map<number, number[]>();
      const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, logitBias = {}, minTokens = 0 } =
        settings;
      for (let token = 0; token < 40; token++) {
        const count = answer.filter((other) => other === token).length;
        const banned = answer.length < minTokens && endIds.includes(token);
        const change = [
          banned ? BANNED : logitBias[token] ?? 0,
          count > 0 || prompt.includes(token) ? repetitionPenalty : 1,
          count > 0 ? presencePenalty + count * frequencyPenalty : 0,
        ].map(Math.fround);
        if (change[0] !== 0 || change[1] !== 1 || change[2] !== 0) expected.set(token, change);
      }
      const got = new Map<number, number[]>();
      for (let at = 0; at < row.edits.length; at += EDIT.size) {
        const [, token, ...change] = row.edits.subarray(at, at + EDIT.size);
        assert.ok(!got.has(token), "a token is edited once");
        got.set(token, change);
      }
      for (const [token, [add, repetition, subtract]] of got) { // one that is not needed any more may stay
        if (add === 0 && repetition === 1 && subtract === 0) got.delete(token);
      }
      const sorted = (edits: Map<number, number[]>) => [...edits].sort(([a], [b]) => a - b);
      assert.deepEqual(sorted(got), sorted(expected), `row ${i}, after ${step} tokens`);
      const token = upTo(40);
      row.add(token);
      answer.push(token);
    }
    assert.equal(row.uniform, uniformOf(row.settings.seed, 0, 40));
  }
});

Deno.test("probabilities are those of Hugging Face's processors, in its order and in vLLM's", () => {
  const { prompt, answer, endIds, logits } = fixture;
  const orders = ["huggingface", "vllm"] as const;
  let different = 0;
  for (const { settings, ...expected } of fixture.cases) {
    for (const filterOrder of orders) {
      const options = { temperature: 1, filterOrder, ...settings as SamplingOptions };
      const got = probabilities(logits, samplingSettings(options, { vocabSize: logits.length }), {
        prompt,
        answer,
        endIds,
      });
      assertClose(Array.from(got), expected[filterOrder], 1e-5, `${JSON.stringify(settings)}, ${filterOrder}`);
    }
    // Control: where the orders differ, one does not pass for the other.
    if (expected.vllm.some((p, i) => Math.abs(p - expected.huggingface[i]) > 1e-3)) different++;
  }
  assert.equal(fixture.cases.length, 24);
  assert.ok(different >= 3, `${different} settings tell the orders apart`);
});

testOnEach(
  backends,
  "every draw is the token that double precision finds at the row's random number",
  async (backend) => {
    const ops = await samplingOpsOf(backend), quick = backend.name === "tensorflow";
    let draws = 0, ties = 0, strangers = 0;
    for (
      const [vocabSize, parts, batches] of [[30, 1, 8], [64, 2, 8], [131, 2, 16], [5000, 2, 4], [
        50257,
        2,
        quick ? 4 : 1,
      ]]
    ) {
      for (let seed = 0; seed < (quick ? batches : Math.ceil(batches / 4)); seed++) {
        const rows = randomRows(100 * vocabSize + seed, vocabSize > 10_000 ? 12 : 40, vocabSize);
        const logits = logitParts(rows, parts);
        const ids = await sampleTokens(ops, logits, rows.map((row) => sampledRow(row)));
        tf.dispose(logits);
        for (const [i, row] of rows.entries()) {
          draws++;
          if (missedBy(ids[i], row) > TOLERANCE) ties++; // a filter's edge may lie within rounding of a token
          if (missedBy(ids[i], row, uniformOf(7, 7, draws)) > TOLERANCE) strangers++;
        }
      }
    }
    assert.ok(ties <= 0.005 * draws, `${ties} of ${draws} draws are others`);
    assert.ok(strangers > 0.3 * draws, `control: with other random numbers, ${strangers} of ${draws} are`);
  },
);

testOnEach(backends, "a row draws the same alone, in any company, and at any place in the batch", async (backend) => {
  const ops = await samplingOpsOf(backend), random = seededRandom(3);
  const sampled = async (rows: TestRow[]) => {
    const logits = logitParts(rows, 2);
    const ids = await sampleTokens(ops, logits, rows.map((row) => sampledRow(row)));
    tf.dispose(logits);
    return ids;
  };
  let others = 0, total = 0;
  for (let seed = 0; seed < (backend.name === "tensorflow" ? 6 : 2); seed++) {
    const rows = randomRows(seed, 12, 900), shuffled = rows.toSorted(() => random() - 0.5);
    const together = await sampled(rows), moved = await sampled([...shuffled, ...randomRows(seed + 50, 5, 900)]);
    for (const [i, row] of rows.entries()) {
      const [alone] = await sampled([row]);
      total += 2;
      others += Number(together[i] !== alone) + Number(moved[shuffled.indexOf(row)] !== alone);
    }
  }
  assert.ok(others <= 0.005 * total, `${others} of ${total}`);
});

Deno.test("libtensorflow and plain tfjs draw the same tokens", async () => {
  let others = 0, total = 0;
  for (const [seed, vocabSize] of [[1, 200], [2, 3000], [3, 50257]]) {
    const rows = randomRows(seed, vocabSize > 10_000 ? 30 : 300, vocabSize), draws: number[][] = [];
    for (const name of ["tensorflow", "cpu"] as const) {
      const ops = await samplingOpsOf(await useBackend(name)), logits = logitParts(rows, name === "cpu" ? 1 : 2);
      draws.push(await sampleTokens(ops, logits, rows.map((row) => sampledRow(row))));
      tf.dispose(logits);
    }
    total += rows.length;
    others += draws[0].filter((id, i) => id !== draws[1][i]).length;
  }
  assert.ok(others <= 0.005 * total, `${others} of ${total} draws differ`);
});

/** Ways to choose, each with a row of its own. */
const KINDS: Record<string, SamplingOptions> = {
  temperature: { temperature: 0.7 },
  hot: { temperature: 1.9 },
  topK: { temperature: 1, topK: 7 },
  topP: { temperature: 1, topP: 0.8 },
  minP: { temperature: 1, minP: 0.06 },
  repetitionPenalty: { temperature: 1, repetitionPenalty: 1.4 },
  presencePenalty: { temperature: 1, presencePenalty: 1.5 },
  frequencyPenalty: { temperature: 1, frequencyPenalty: 0.9 },
  logitBias: { temperature: 1, logitBias: { 3: 2, 8: -3, 50: -100 } },
  minTokens: { temperature: 1, minTokens: 9 },
  filters: { temperature: 1.3, topK: 20, topP: 0.85, minP: 0.03 },
  filtersLast: { temperature: 1.6, topK: 40, topP: 0.8, minP: 0.12, filterOrder: "huggingface" },
  everything: {
    temperature: 1.2,
    topP: 0.9,
    minP: 0.02,
    repetitionPenalty: 1.2,
    presencePenalty: 0.4,
    frequencyPenalty: 0.3,
    logitBias: { 4: 1.5 },
    minTokens: 5,
  },
  flat: { temperature: 6, topP: 0.97 }, // more tokens than the device looks at
};

const DRAWS = 100_000;

/** How often each token of each kind of row came: draws of the first, second, … answer, all kinds in each batch. */
async function countDraws(rows: TestRow[], choiceOf: (kind: number, step: number) => number): Promise<Float64Array[]> {
  const ops = await samplingOpsOf(await useBackend("tensorflow")), each = 1000; // rows of a kind in a batch
  const batch = rows.flatMap((row) => Array<TestRow>(each).fill(row)), logits = logitParts(batch, 2);
  const counts = rows.map(({ logits }) => new Float64Array(logits.length)), settings = batch.map(settingsOf);
  for (let step = 0; step < DRAWS; step += each) {
    const ids = await sampleTokens(
      ops,
      logits,
      batch.map((row, i) => sampledRow(row, choiceOf(Math.floor(i / each), step + i % each), settings[i])),
    );
    for (const [i, id] of ids.entries()) counts[Math.floor(i / each)][id]++;
  }
  tf.dispose(logits);
  return counts;
}

Deno.test("100,000 draws of each kind, side by side in mixed batches, fit their exact distributions, and no wrong ones", async () => {
  const normal = seededNormal(11);
  const rows = Object.values(KINDS).map((options, i): TestRow => ({
    options: { ...options, seed: 1000 + i },
    // What was said is likely, so that penalties matter.
    logits: Float32Array.from({ length: 100 }, (_, id) => 1.8 * normal() + (id < 7 ? 3 : 0)),
    prompt: [1, 2, 3, 3],
    answer: [3, 4, 4, 4],
    endIds: [5, 6],
  }));
  const exact = (row: TestRow, change: SamplingOptions = {}) =>
    probabilities(row.logits, samplingSettings({ ...row.options, ...change }, { vocabSize: 100 }), row);
  const counts = await countDraws(rows, (_, answer) => answer);
  const names = Object.keys(KINDS), of = (name: string) => names.indexOf(name);
  for (const [i, row] of rows.entries()) {
    assert.equal(counts[i].reduce((sum, count) => sum + count), DRAWS);
    const p = chiSquareP(counts[i], exact(row));
    assert.ok(p > UNLIKELY, `${names[i]}: p = ${p}`);
    if (i > 0) {
      assert.ok(chiSquareP(counts[i], exact(rows[i - 1])) < 1e-12, `control: ${names[i]} are not its neighbour's`);
    }
  }
  // Controls: wrong samplers, each by a little, would not pass.
  const wrong: Record<string, [string, Float64Array]> = {
    "the temperature after top-p": ["filters", afterTemperature(exact(rows[of("filters")], { temperature: 1 }), 1.3)],
    "top-p with a token too few": ["topP", withoutLast(exact(rows[of("topP")]))],
    "top-k with a token too few": ["topK", withoutLast(exact(rows[of("topK")]))],
    "min-p without its last": ["minP", withoutLast(exact(rows[of("minP")]))],
    "min-p before the others": ["filtersLast", exact(rows[of("filtersLast")], { filterOrder: "vllm" })],
    "frequency as presence": [
      "frequencyPenalty",
      exact(rows[of("frequencyPenalty")], { frequencyPenalty: 0, presencePenalty: 0.9 }),
    ],
    "a repetition penalty for the answer only": [
      "repetitionPenalty",
      exact({ ...rows[of("repetitionPenalty")], prompt: [] }),
    ],
    "a presence penalty for the prompt too": [
      "presencePenalty",
      exact({ ...rows[of("presencePenalty")], answer: [1, 2, 3, 4] }),
    ],
    "no ban": ["minTokens", exact(rows[of("minTokens")], { minTokens: 0 })],
    "no bias": ["logitBias", exact(rows[of("logitBias")], { logitBias: {} })],
  };
  for (const [what, [kind, distribution]] of Object.entries(wrong)) {
    const p = chiSquareP(counts[of(kind)], distribution);
    assert.ok(p < 1e-9, `control: ${what}: p = ${p}`);
  }
});

Deno.test("control: rows that share their random numbers are found out", async () => {
  const [row] = randomRows(1, 1, 100), rows = [{ ...row, options: { temperature: 1, seed: 1 } }];
  const [counts] = await countDraws(rows, (_, answer) => Math.floor(answer / 1000)); // one number for all rows of a batch
  const exact = probabilities(row.logits, samplingSettings(rows[0].options, { vocabSize: 100 }), row);
  assert.ok(chiSquareP(counts, exact) < 1e-9);
});

/** Probabilities as they would be if the temperature came last. */
function afterTemperature(probabilities: Float64Array, temperature: number): Float64Array {
  const powers = probabilities.map((p) => p ** (1 / temperature)), total = powers.reduce((sum, p) => sum + p);
  return powers.map((p) => p / total);
}

/** Without the least likely token that can come. */
function withoutLast(probabilities: Float64Array): Float64Array {
  const least = probabilities.reduce((least, p) => p > 0 && p < least ? p : least, 1);
  return probabilities.map((p) => p === least ? 0 : p / (1 - least));
}

Deno.test("one captured sampler serves every batch size, as operations one by one and compiled by XLA", async () => {
  await useBackend("tensorflow");
  const backend = await openTensorflow(), vocabSize = 2000;
  const ops = await samplingOpsOf({ name: "tensorflow" });
  const build = ([settings, edits, ...parts]: tf.Tensor[]) =>
    toTensors(sample(ops, parts as tf.Tensor2D[], { settings: settings as tf.Tensor2D, edits: edits as tf.Tensor2D }));
  const compiledBuild = ([settings, edits, ...parts]: tf.Tensor[]) => {
    const own = tensorflowSamplingOps(backend, { compiled: true });
    return toTensors(
      sample(own, parts as tf.Tensor2D[], { settings: settings as tf.Tensor2D, edits: edits as tf.Tensor2D }),
    );
  };
  const inputsOf = (rows: TestRow[]) => {
    const { settings, edits } = samplerTensors(rows.map((row) => sampledRow(row)));
    return [settings, edits, ...logitParts(rows, 2)];
  };
  const first = inputsOf(randomRows(1, 3, vocabSize));
  const captured = backend.capture(first, build), forXla = backend.capture(first, compiledBuild);
  const before = tf.memory().numTensors;
  for (const count of [3, 1, 7, 16]) {
    const tests = randomRows(count, count, vocabSize),
      rows = tests.map((row) => sampledRow(row)),
      inputs = inputsOf(tests);
    const widths = inputs.slice(2).map(({ shape }) => shape[1]!);
    const expected = await sampleTokens(ops, inputs.slice(2) as tf.Tensor2D[], rows);
    const runs = [captured.run(inputs, { threads: { intraOp: 1, interOp: 2 } })];
    if (count < 16) runs.push(forXla.run(inputs, { compiled: true })); // XLA takes seconds for each shape
    for (const run of runs) {
      const outputs = await run;
      assert.deepEqual(await settledIds(fromTensors(outputs), rows, widths), expected);
      tf.dispose(outputs);
    }
    tf.dispose(inputs);
  }
  assert.equal(tf.memory().numTensors, before, "nothing is left behind");
  captured.dispose();
  forXla.dispose();
  tf.dispose(first);
});

testOnEach(backends, "logits that are equal go by id, and top-k keeps all that equal its last", async (backend) => {
  const ops = await samplingOpsOf(backend), vocabSize = 700;
  // Few different values, as bfloat16 weights make them; among them more equal ones than there are candidates.
  const random = seededRandom(2);
  const rows = Array.from({ length: 60 }, (_, i): TestRow => ({
    logits: Float32Array.from({ length: vocabSize }, () => Math.floor(random() ** 3 * (i < 30 ? 40 : 6)) / 2),
    options: {
      temperature: [1, 0][i % 2] || 1,
      seed: i,
      ...[{ topK: 5 }, { topP: 0.5 }, { topK: 1 }, { topK: 50, topP: 0.9 }, { temperature: 0 }][i % 5],
    },
    prompt: [],
    answer: [],
    endIds: [],
  }));
  const logits = logitParts(rows, 2);
  const ids = await sampleTokens(ops, logits, rows.map((row) => sampledRow(row)));
  tf.dispose(logits);
  for (const [i, row] of rows.entries()) assert.ok(missedBy(ids[i], row) <= TOLERANCE, `row ${i}`);
  const equal = rows.filter(({ logits, options: { topK } }) => {
    const likely = probabilities(logits, samplingSettings({ temperature: 1, topK }, { vocabSize }));
    return topK && likely.filter((p) => p > 0).length > topK;
  });
  assert.ok(equal.length > 10, `top-k ends between equal logits in ${equal.length} rows`);
});

Deno.test("what the device leaves open is rare with few likely tokens, and the host decides it exactly", async () => {
  const backend = await useBackend("tensorflow"), ops = await samplingOpsOf(backend), vocabSize = 5000;
  const shares = [];
  for (const [spread, temperature] of [[4, 1], [0.5, 1], [4, 0.02]]) { // a few likely tokens, thousands, hardly any
    const normal = seededNormal(4);
    const rows = Array.from({ length: 200 }, (_, i): TestRow => ({
      logits: Float32Array.from({ length: vocabSize }, () => spread * normal()),
      options: {
        temperature,
        seed: i,
        ...[{ topP: 0.9 }, { topK: 50 + 1950 * (i % 2) }, { minP: 0.001, topP: 0.99 }][i % 3],
      },
      prompt: [],
      answer: [],
      endIds: [],
    }));
    const logits = logitParts(rows, 2), sampled = rows.map((row) => sampledRow(row)), inputs = samplerTensors(sampled);
    const outputs = toTensors(sample(ops, logits, inputs)), { settled } = fromTensors(outputs);
    const open = Array.from(await settled.data()).map((settled) => settled === 0);
    const ids = await settledIds(fromTensors(outputs), sampled, logits.map(({ shape }) => shape[1]));
    for (const [i, row] of rows.entries()) assert.ok(missedBy(ids[i], row) <= TOLERANCE, `row ${i}, open: ${open[i]}`);
    const counted = temperature < 1 ? open : open.filter((_, i) => i % 3 === 0); // else those with top-p alone
    shares.push(counted.filter(Boolean).length / counted.length);
    tf.dispose([...outputs, ...logits, inputs.settings, inputs.edits]);
  }
  const [few, thousands, hardlyAny] = shares;
  assert.ok(few < 0.3 && thousands > 0.5 && hardlyAny === 0, `${shares} of the rows are left to the host`);
});

testOnEach(
  backends,
  "logits that are no numbers end in some token, and their neighbours do not notice",
  async (backend) => {
    const ops = await samplingOpsOf(backend), vocabSize = 900, rows = randomRows(8, 20, vocabSize);
    const sampled = async (rows: TestRow[]) => {
      const logits = logitParts(rows, 2);
      const ids = await sampleTokens(ops, logits, rows.map((row) => sampledRow(row)));
      tf.dispose(logits);
      return ids;
    };
    const expected = await sampled(rows);
    for (const value of [NaN, Infinity, -Infinity]) {
      for (const every of [1, 7]) {
        const broken = rows.map((row, i) =>
          i % 2 ? row : { ...row, logits: row.logits.map((x, at) => at % every ? x : value) }
        );
        for (const [i, id] of (await sampled(broken)).entries()) {
          assert.ok(Number.isInteger(id) && id >= 0 && id < vocabSize, `row ${i} of ${value}: ${id}`);
          if (i % 2) assert.equal(id, expected[i]);
        }
      }
    }
  },
);

testOnEach(
  backends,
  "log-probabilities are the model's own, of the chosen token and of the most likely ones",
  async (backend) => {
    const ops = await samplingOpsOf(backend);
    for (const [vocabSize, parts] of [[30, 1], [700, 2], [5000, 2]]) {
      const rows = randomRows(vocabSize, 6, vocabSize), logits = logitParts(rows, parts);
      const chosen = rows.map((_, i) => (i * 331 + 7) % vocabSize);
      const wanted = tf.tensor1d(chosen, "int32");
      const outputs = logprobs(ops, logits, wanted, { top: 5 }) as Required<Logprobs>;
      const [own, ids, top] = await Promise.all([outputs.chosen.array(), outputs.topIds.array(), outputs.top.array()]);
      tf.dispose([...logits, wanted, ...Object.values(outputs)]);
      for (const [i, { logits }] of rows.entries()) {
        const likely = probabilities(logits, samplingSettings({ temperature: 1 }, { vocabSize }));
        const best = Array.from(likely.keys()).sort((a, b) => likely[b] - likely[a]).slice(0, 5);
        assert.deepEqual(ids[i], best);
        assertClose(top[i], best.map((id) => Math.log(likely[id])), 1e-4, `the most likely of row ${i}`);
        assertClose([own[i]], [Math.log(likely[chosen[i]])], 1e-4, `the chosen one of row ${i}`);
      }
    }
  },
);

Deno.test("in one capture with the sampler, which changes logits in place, log-probabilities are still the model's own", async () => {
  await useBackend("tensorflow");
  const backend = await openTensorflow(), ops = await samplingOpsOf({ name: "tensorflow" }), vocabSize = 700;
  const rows = randomRows(12, 9, vocabSize).map((row) => ({
    ...row,
    options: { ...row.options, repetitionPenalty: 1.8 },
  }));
  const { settings, edits } = samplerTensors(rows.map((row) => sampledRow(row))), logits = logitParts(rows, 2);
  const captured = backend.capture([settings, edits, ...logits], ([settings, edits, ...logits]) => {
    const parts = logits as tf.Tensor2D[];
    const { ids } = sample(ops, parts, { settings: settings as tf.Tensor2D, edits: edits as tf.Tensor2D });
    return [ids, logprobs(ops, parts, ids, { top: 0 }).chosen];
  });
  const [ids, chosen] = await captured.run([settings, edits, ...logits]), found = await chosen.data();
  for (const [i, id] of (await ids.data()).entries()) {
    const likely = probabilities(rows[i].logits, samplingSettings({ temperature: 1 }, { vocabSize }));
    assertClose([found[i]], [Math.log(likely[id])], 1e-4, `row ${i}`);
  }
  captured.dispose();
  tf.dispose([ids, chosen, settings, edits, ...logits]);
});

Deno.test("a greedy row in a mixed batch takes the token that argMax takes", async () => {
  const backend = await useBackend("tensorflow"), ops = await samplingOpsOf(backend);
  const rows = randomRows(6, 64, 3000).map((row, i) => i % 2 ? row : { ...row, options: {} });
  const logits = logitParts(rows, 2), greedy = backend.ops.argMax(logits), expected = await greedy.data();
  const ids = await sampleTokens(ops, logits, rows.map((row) => sampledRow(row)));
  for (let i = 0; i < rows.length; i += 2) {
    assert.ok(sampledRow(rows[i]).takesLargest);
    assert.equal(ids[i], expected[i]);
  }
  tf.dispose([...logits, greedy]);
});

Deno.test("the host draws what double precision says, whatever the filters", () => {
  for (const row of randomRows(9, 200, 400)) {
    const sampled = sampledRow(row), { temperature } = sampled.settings;
    const edited = Float64Array.from(row.logits);
    for (let at = 0; at < sampled.edits.length; at += EDIT.size) {
      const [, token, add, repetition, subtract] = sampled.edits.subarray(at, at + EDIT.size), x = edited[token] + add;
      edited[token] = (x > 0 ? x / repetition : x * repetition) - subtract;
    }
    const max = Math.max(...edited), cold = temperature || 1;
    const weights = Float32Array.from(edited, (x) => Math.exp((x - max) / cold));
    const id = draw([{ width: 400, weights }], sampled.settings, sampled.uniform);
    const filtered = { ...row, options: { topK: 400, ...row.options } }; // so that it goes by falling probability
    assert.ok(missedBy(id, filtered) <= TOLERANCE, JSON.stringify(row.options));
  }
});
