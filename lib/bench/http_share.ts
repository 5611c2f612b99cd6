/**
 * What HTTP and JSON cost beside the model: `deno run -A lib/bench/http_share.ts`. 64 streams over HTTP, read by another
 * process, and the same requests given to the engine alone, by turns; the difference in this process's CPU time is the
 * server's own part.
 */

import { cpuUsage } from "node:process";
import { Engine } from "../engine/engine.ts";
import { gpt2Config } from "../gpt2/config.ts";
import { randomGPT2 } from "../pretrained.ts";
import { useBackend } from "../backend/select.ts";
import { serve } from "../serve/server.ts";
import { AutoTokenizer } from "../tokenizer/tokenizer.ts";
import { median } from "../util/median.ts";

const STREAMS = 64, TOKENS = 48, ROUNDS = 5;
const [role, url] = Deno.args;

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
  await using server = serve({ engine, model: { name: "gpt2", config: model.config, tokenizer } }, { port: 0 });
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
  /** Microseconds of this process's CPU time for each token. */
  const cost = async (work: () => Promise<void>) => {
    const before = cpuUsage();
    await work();
    const { user, system } = cpuUsage(before);
    return (user + system) / (STREAMS * TOKENS);
  };
  await cost(alone);
  await cost(overHttp);
  const costs: [number, number][] = [];
  for (let i = 0; i < ROUNDS; i++) costs.push([await cost(alone), await cost(overHttp)]);
  const [engineAlone, served] = [0, 1].map((k) => median(costs.map((pair) => pair[k])));
  const shares = costs.map(([engineAlone, served]) => (served - engineAlone) / served);
  console.log(`${STREAMS} streams of ${TOKENS} tokens, GPT-2 124M, ${model.backend.name}, medians of ${ROUNDS}:`);
  console.log(`  engine alone ${engineAlone.toFixed(0)} µs of CPU time a token, over HTTP ${served.toFixed(0)} µs`);
  console.log(
    `  HTTP, JSON and text: ${(100 * median(shares)).toFixed(1)}% (${
      shares.map((s) => (100 * s).toFixed(1)).join(", ")
    })`,
  );
}
