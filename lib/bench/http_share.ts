/**
 * What HTTP and JSON cost beside the model: `deno run -A lib/bench/http_share.ts`. 64 streams over HTTP, read by another
 * process, and the same requests given to the engine alone, by turns. HTTP, JSON and text are the main thread's, where
 * libtensorflow computes nothing: what it takes more CPU time over HTTP is their part. (The other threads take more, too,
 * because they wait for each other by spinning, and the client has the cores meanwhile.)
 */

import process from "node:process";
import { Engine } from "../engine/engine.ts";
import { gpt2Config } from "../gpt2/config.ts";
import { randomGPT2 } from "../pretrained.ts";
import { useBackend } from "../backend/select.ts";
import { serve } from "../serve/server.ts";
import { AutoTokenizer } from "../tokenizer/tokenizer.ts";
import { median } from "../util/median.ts";

const STREAMS = 64, TOKENS = 48, ROUNDS = 3;
const [role, url] = Deno.args;

/** CPU time: of the whole process, and of its main thread. */
interface Cost {
  whole: number;
  main: number;
}

/** What each stream asks for. */
const body = (seed: number) => ({
  prompt: [464, 2068, 7586, seed],
  max_tokens: TOKENS,
  temperature: 0,
  ignore_eos: true,
});

if (role === "client") {
  const read = async (seed: number) => {
    const init = { method: "POST", body: JSON.stringify({ ...body(seed), stream: true }) };
    await (await fetch(`${url}/v1/completions`, init)).text();
  };
  await Promise.all(Array.from({ length: STREAMS }, (_, seed) => read(seed)));
} else {
  using model = await randomGPT2(gpt2Config("gpt2"), { backend: await useBackend("auto") });
  const tokenizer = await AutoTokenizer.fromPretrained("models/small");
  await using engine = new Engine({ model, maxBatch: STREAMS });
  await using server = await serve({ engine, model: { name: "gpt2", config: model.config, tokenizer } }, { port: 0 });
  await server.ready;
  const overHttp = async () => {
    const args = ["run", "-A", import.meta.filename!, "client", server.url];
    const { success } = await new Deno.Command(Deno.execPath(), { args }).output();
    if (!success) throw new Error("the client failed");
  };
  const alone = async () => {
    const answers = Array.from({ length: STREAMS }, (_, seed) => {
      const { prompt, max_tokens: maxTokens, ignore_eos: ignoreEos } = body(seed);
      return engine.submit({ prompt, maxTokens, ignoreEos });
    });
    await Promise.all(answers.map(({ result }) => result));
  };
  const perToken = ({ user, system }: NodeJS.CpuUsage) => (user + system) / (STREAMS * TOKENS);
  /** Microseconds of CPU time for each token. */
  const cost = async (work: () => Promise<void>): Promise<Cost> => {
    const whole = process.cpuUsage(), thread = process.threadCpuUsage();
    await work();
    return { whole: perToken(process.cpuUsage(whole)), main: perToken(process.threadCpuUsage(thread)) };
  };
  await cost(alone);
  await cost(overHttp);
  const costs: { alone: Cost; served: Cost; share: number }[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    const pair = { alone: await cost(alone), served: await cost(overHttp) };
    costs.push({ ...pair, share: (pair.served.main - pair.alone.main) / pair.served.whole });
  }
  const middle = (of: (pair: typeof costs[number]) => number) => median(costs.map(of));
  const inWords = (which: "alone" | "served") =>
    `${middle((pair) => pair[which].whole).toFixed(0)} µs a token, ${
      middle((pair) => pair[which].main).toFixed(0)
    } of ` +
    "them the main thread's";
  console.log(`${STREAMS} streams of ${TOKENS} tokens, GPT-2 124M, ${model.backend.name}, medians of ${ROUNDS}:`);
  console.log(`  engine alone: ${inWords("alone")}`);
  console.log(`  over HTTP:    ${inWords("served")}`);
  const percent = (share: number) => (100 * share).toFixed(1);
  console.log(
    `  HTTP, JSON and text: ${percent(middle(({ share }) => share))}% (${
      costs.map(({ share }) => percent(share)).join(", ")
    })`,
  );
}
