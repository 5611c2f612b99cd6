/**
 * What choosing tokens costs on libtensorflow, beside the ArgMax that an all-greedy batch needs: `deno run -A
 * lib/bench/sampling.ts`. The logits are those of models/small, which has GPT-2's vocabulary.
 */

import * as tf from "@tensorflow/tfjs";
import { cpuUsage } from "node:process";
import { useBackend } from "../backend/select.ts";
import { fromTensors, sample, type SamplerTensors, toTensors } from "../backend/sampling.ts";
import { nextTokenLogits } from "../engine/logits.ts";
import { SampledRow } from "../engine/sampled_row.ts";
import { samplerTensors, settledIds } from "../engine/sampler.ts";
import { type SamplingOptions, samplingSettings } from "../engine/sampling.ts";
import { loadGPT2 } from "../gpt2/load.ts";
import { tensorflowSamplingOps } from "../tensorflow/sampling.ts";
import { openTensorflow } from "../tensorflow/tfjs/backend.ts";
import { padBatch } from "../tokenizer/batch.ts";
import { seededRandom } from "../util/random.ts";
import { ranges } from "../util/ranges.ts";
import { table } from "../util/table.ts";
import { median } from "../util/median.ts";

/** Settings by the row's number. */
const MIXES: Record<string, (row: number) => SamplingOptions> = {
  temperature: (row) => ({ temperature: 0.7 + row / 200 }),
  "top-k 50": (row) => ({ temperature: 0.7 + row / 200, topK: 50 }),
  "top-p 0.95": (row) => ({ temperature: 1, topP: 0.95, seed: row }),
  "all different": (row) => ({
    temperature: 0.6 + row / 200,
    ...row % 2 && { topP: 0.85 + row / 1280 },
    ...row % 3 === 0 && { topK: 20 + row },
    ...row % 5 === 0 && { minP: 0.02 + row / 4000 },
    ...row % 7 === 0 && { repetitionPenalty: 1.1, frequencyPenalty: 0.2 },
  }),
};

/** Milliseconds: on the clock, and of all cores together, which others that use the machine disturb less. */
interface Times {
  wall: number[];
  cpu: number[];
}

/** Times choosing the next token of a batch in turns with its ArgMax, and says how many rows the host had to decide. */
export async function timeSampling(
  { batchSize, rounds, folder = "models/small" }: { batchSize: number; rounds: number; folder?: string },
): Promise<Record<string, { wall: number; cpu: number; open: number }>> {
  const backend = await useBackend("tensorflow"), tensorflow = await openTensorflow();
  const ops = tensorflowSamplingOps(tensorflow), prompts = randomPrompts(batchSize);
  using model = await loadGPT2(folder, { backend });
  const V = model.config.vocab_size, logits = await nextTokenLogits(model, padBatch(prompts, { padTokenId: 0 }));
  const whole = tf.tensor2d(Float32Array.from(logits.flatMap((row) => Array.from(row))), [batchSize, V]);
  const columns = ranges(V, tensorflow.sideBySide, 16); // as the head has it
  const parts = columns.map(([start, end]) => tf.slice(whole, [0, start], [-1, end - start]));
  const threads = { intraOp: 1, interOp: tensorflow.threads.intraOp };
  const greedy = tensorflow.capture(parts, (parts) => [backend.ops.argMax(parts as tf.Tensor2D[])]);
  const inputs = (rows: SampledRow[]) => samplerTensors(rows);
  const { settings, edits } = inputs(
    prompts.map((prompt) => new SampledRow(samplingSettings({}, { vocabSize: V }), { prompt })),
  );
  const sampled = tensorflow.capture(
    [settings, edits, ...parts],
    ([settings, edits, ...parts]) =>
      toTensors(sample(ops, parts as tf.Tensor2D[], { settings, edits } as SamplerTensors)),
  );

  const ways: Record<string, () => Promise<number>> = {
    "ArgMax": async () => {
      const [ids] = await greedy.run(parts, { threads });
      await ids.data();
      ids.dispose();
      return 0;
    },
  };
  for (const [name, optionsOf] of Object.entries(MIXES)) {
    const rows = prompts.map((prompt, row) =>
      new SampledRow(samplingSettings(optionsOf(row), { vocabSize: V }), { prompt })
    );
    ways[name] = async () => {
      const { settings, edits } = samplerTensors(rows);
      const outputs = await sampled.run([settings, edits, ...parts], { threads }), chosen = fromTensors(outputs);
      await settledIds(chosen, rows, columns.map(([start, end]) => end - start));
      const open = Array.from(await chosen.settled.data()).filter((settled) => !settled).length;
      tf.dispose([...outputs, settings, edits]);
      for (const [i, row] of rows.entries()) row.add(prompts[i][0]); // so that each round draws anew
      return open;
    };
  }
  const times = new Map(
    Object.keys(ways).map((name): [string, Times & { open: number[] }] => [name, { wall: [], cpu: [], open: [] }]),
  );
  const warmups = 2;
  for (let round = 0; round < rounds + warmups; round++) {
    for (const [name, way] of Object.entries(ways)) {
      const start = performance.now(), busy = cpuUsage();
      const open = await way();
      const wall = performance.now() - start, { user, system } = cpuUsage(busy), all = times.get(name)!;
      if (round < warmups) continue;
      all.wall.push(wall);
      all.cpu.push((user + system) / 1000);
      all.open.push(open);
    }
  }
  greedy.dispose();
  sampled.dispose();
  tf.dispose([whole, ...parts, settings, edits]);
  return Object.fromEntries(
    [...times].map((
      [name, { wall, cpu, open }],
    ) => [name, { wall: median(wall), cpu: median(cpu), open: median(open) }]),
  );
}

/** Text that the model does not know, of a few tokens a row. */
function randomPrompts(batchSize: number): number[][] {
  const random = seededRandom(1);
  return Array.from({ length: batchSize }, () => Array.from({ length: 12 }, () => Math.floor(random() ** 3 * 20_000)));
}

if (import.meta.main) {
  const rows = [["batch", "choice", "ms", "ms of all cores", "over ArgMax, ms", "rows left to the host"]];
  for (const batchSize of [1, 8, 32, 128]) {
    const times = await timeSampling({ batchSize, rounds: 25 });
    for (const [name, { wall, cpu, open }] of Object.entries(times)) {
      rows.push([
        String(batchSize),
        name,
        ...[wall, cpu, wall - times.ArgMax.wall].map((value) => value.toFixed(2)),
        String(open),
      ]);
    }
  }
  console.log(table(rows));
}
