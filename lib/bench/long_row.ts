/**
 * What a long row costs its companions: a decode step of 31 rows of at most 60 tokens with one of 900 among them, beside steps of
 * the short ones alone and of the long one alone, in turns: `deno run -A lib/bench/long_row.ts [DTYPE]`.
 */

import type { Dtype } from "../backend/ops.ts";
import { useBackend } from "../backend/select.ts";
import { KvCache } from "../engine/kv_cache.ts";
import { parallelismFor } from "../engine/parallelism.ts";
import { Runner } from "../engine/runner.ts";
import { gpt2Config } from "../gpt2/config.ts";
import { randomGPT2 } from "../gpt2/load.ts";
import { median } from "../util/median.ts";

const [dtype = "float32"] = Deno.args;
using model = await randomGPT2(gpt2Config("gpt2"), { backend: await useBackend("auto"), dtype: dtype as Dtype });
const short = Array.from({ length: 31 }, (_, i) => 10 + i % 6 * 10), long = [900];
const cases = [[...short, ...long], short, long].map((lengths) => {
  const cache = new KvCache(model, parallelismFor(model, 32));
  const rows = lengths.map((length) => cache.admit({ slots: [length + 1], length })[0]);
  cache.reserve(rows, rows.map(() => 1)); // joins what is worth being together
  return { cache, feeds: rows.map((row) => ({ row, tokens: [0] })), seconds: [] as number[] };
});
for (let round = 0; round <= 20; round++) {
  for (const { cache, feeds, seconds } of cases) {
    const start = performance.now();
    await Runner.of(model).step(cache, feeds);
    if (round > 0) seconds.push((performance.now() - start) / 1000);
    for (const { row } of feeds) cache.rewind(row, row.length - 1);
  }
}
const [together, ...apart] = cases.map(({ seconds }) => 1000 * median(seconds)), sum = apart[0] + apart[1];
console.log(
  `${dtype}, GPT-2 124M: ${together.toFixed(1)} ms together, ${
    apart.map((ms) => ms.toFixed(1)).join(" + ")
  } ms apart: ` +
    `${(together / sum).toFixed(2)} of their sum.`,
);
for (const { cache } of cases) cache[Symbol.dispose]();
