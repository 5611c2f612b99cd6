/** What the notebooks fold in as "the same in PyTorch": in full runs, where `deno task bench` has installed PyTorch. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { BENCH_FOLDER } from "../lib/bench/peers/environment.ts";
import { AutoModelForCausalLM, AutoTokenizer, generateBatch } from "../lib/mod.ts";
import { NOTEBOOKS, storedNotebooks } from "./_support/stored_notebooks.ts";

const full = Deno.env.has("OMNIBUS_FULL"), python = join(BENCH_FOLDER, "venv", "bin", "python");
const installed = full && await runs("import torch, transformers").then(() => true, () => false);
const skipped = full
  ? installed ? "" : " [skipped: `deno task bench` installs PyTorch]"
  : " [skipped: `deno task test --full` runs it]";

Deno.test({
  name: `what a notebook calls the same in PyTorch runs, and gives the same tokens${skipped}`,
  ignore: !installed,
  async fn() {
    using model = await AutoModelForCausalLM.fromPretrained("models/small");
    const tokenizer = await AutoTokenizer.fromPretrained("models/small");
    const prompts = ["The quick brown fox jumped over the", "Never have I ever", "What comes up must"];
    const answers = await generateBatch(model, tokenizer(prompts, { padding: true }), { maxTokens: 10 });
    const texts = (count: number) => answers.map(({ tokens }) => tokenizer.decode(tokens.slice(0, count)));
    const notebooks = await storedNotebooks();
    const kept = notebooks.find(({ name }) => name === "06_sampling")!.text
      .match(/“What comes up must”: (\d+), (\d+) and (\d+) tokens are left/)!.slice(1);
    const expected: Record<string, string[]> = {
      "01_text_generation": [prompts[2] + texts(10)[2]],
      "02_kv_cache": [`${texts(5)[2]} | 8 in the cache`],
      "03_padding_and_masks": [`[${texts(1).map((text) => `'${text}'`).join(", ")}]`],
      "04_batching": texts(10),
      "05_roofline": ["512 rows:", "GB/s"],
      "06_sampling": [`[${kept.join(", ")}] tokens are left`],
    };
    const found: string[] = [];
    for (const { name, notebook: { cells } } of notebooks) {
      const prose = cells.filter(({ cell_type }) => cell_type === "markdown").map(({ source }) => source.join(""));
      const code = [...prose.join("\n").matchAll(/<summary>The same in PyTorch<\/summary>\n\n```python\n([^]*?)```/g)];
      if (!code.length) continue;
      found.push(name);
      const printed = await runs(code.map(([, block]) => block).join("\n"));
      for (const text of expected[name]) assert.ok(printed.includes(text), `${name} prints ${printed}, not ${text}`);
    }
    assert.deepEqual(found, Object.keys(expected));
  },
});

/** What a Python program prints that runs where the notebooks are. */
async function runs(program: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(python, { args: ["-c", program], cwd: NOTEBOOKS })
    .output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
