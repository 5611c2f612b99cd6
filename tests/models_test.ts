/** What is said about models, in cards and tables, against the files and the formulas. */

import assert from "node:assert/strict";
import { GPT2_SIZES, gpt2Config, type GPT2Size, parameterCount } from "../lib/gpt2/config.ts";
import { readConfig } from "../lib/gpt2/config_file.ts";
import { KvCache } from "../lib/engine/kv_cache.ts";
import { openWeights } from "../lib/safetensors/reader.ts";
import { sha256 } from "./_support/fake_hub.ts";
import { loadInItsOwnProcess } from "./_support/load_memory.ts";
import { writeRandomCheckpoint } from "./_support/random_checkpoint.ts";

Deno.test("the shipped model's card tells the truth about its files", async () => {
  const card = await Deno.readTextFile("models/small/README.md");
  const config = await readConfig("models/small"), { n_layer, n_embd, n_head, n_positions, vocab_size } = config;
  using weights = await openWeights("models/small");
  let parameters = 0;
  for (const { shape } of weights.tensors.values()) parameters += shape.reduce((a, b) => a * b, 1);
  assert.equal(parameters, parameterCount(config));
  for (
    const claim of [
      `${parameters.toLocaleString("en")} parameters in float16`,
      `sha256 \`${sha256(await Deno.readFile("models/small/model.safetensors"))}\``,
      `${n_layer} layers, ${n_embd} wide, ${n_head} heads, ${n_positions} positions, ${
        vocab_size.toLocaleString("en")
      } tokens`,
    ]
  ) assert.ok(card.includes(claim), claim);
  assert.ok([...weights.tensors.values()].every(({ dtype }) => dtype === "F16"));
});

Deno.test("the table of sizes agrees with the formulas", async () => {
  const text = await Deno.readTextFile("models/README.md");
  /** An amount as the table writes it, with as many decimals as the cell has. */
  const like = (cell: string, bytes: number) => {
    const [, , decimals = "", unit] = /^(\d+(?:\.(\d+))?) (MB|GB)$/.exec(cell)!;
    return `${(bytes / (unit === "MB" ? 1e6 : 1e9)).toFixed(decimals.length)} ${unit}`;
  };
  for (const name of ["small", ...Object.keys(GPT2_SIZES)]) {
    const config = name === "small" ? await readConfig("models/small") : gpt2Config(name as GPT2Size);
    const cells = text.split("\n").find((line) => line.startsWith(`| \`${name}\` |`))!.split("|").map((c) => c.trim());
    const [, , parameters, , weights, row, rows] = cells, count = parameterCount(config);
    const full = KvCache.bytes(config, 1, config.n_positions), batch = KvCache.bytes(config, 128, config.n_positions);
    assert.equal(parameters, count.toLocaleString("en"));
    for (const [cell, bytes] of [[weights, 4 * count], [row, full], [rows, batch]] as const) {
      assert.equal(cell, like(cell, bytes), name);
    }
  }
});

Deno.test({
  name: "loading needs the memory of the weights and little more, whatever the size of the file",
  ignore: Deno.build.os !== "linux", // the others do not say how much memory a process had at most
  async fn() {
    const folder = await Deno.makeTempDir();
    try {
      const shape = { n_layer: 4, n_embd: 1024, n_head: 16, n_inner: 4096, vocab_size: 20_000 };
      const config = { ...gpt2Config("gpt2"), ...shape, eos_token_id: null, bos_token_id: null };
      const fileBytes = await writeRandomCheckpoint(folder, config);
      const { ready, loaded, parameters, tokens } = await loadInItsOwnProcess(folder, "float32");
      const weights = 4 * parameters, extra = loaded - ready - weights;
      console.log(
        `${parameters} parameters: a file of ${Math.round(fileBytes / 1e6)} MB, ${Math.round(weights / 1e6)} MB of ` +
          `weights, and ${Math.round(extra / 1e6)} MB more at most while loading`,
      );
      assert.ok(extra < 100e6, "less than the file, so that it cannot be in memory as a whole");
      assert.ok(fileBytes > 140e6, "or the limit above would prove nothing");
      assert.deepEqual(tokens.map((row: number[]) => row.length), [3, 3]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
