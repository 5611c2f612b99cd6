/**
 * The server with Python's clients: `openai`, EleutherAI's `lm-eval`, and the load generator `guidellm`. `task test --full` runs
 * what `python3` and the PATH have of them.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { generateBatch } from "../lib/engine/generate.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { served } from "./_support/http.ts";
import { runs } from "./_support/programs.ts";

const full = Deno.env.has("OMNIBUS_FULL");
const root = new URL("..", import.meta.url);

async function output(program: string, args: string[], env: Record<string, string> = {}): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args, cwd: root, env }).output();
  const [text, said] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert.ok(success, said.slice(-3000) + text.slice(-1000));
  return text;
}

Deno.test({
  name: "OpenAI's Python client gets what the library gives",
  ignore: !full || !await runs("python3", "-c", "import openai"),
  async fn() {
    await using it = await served();
    const got = JSON.parse(await output("python3", ["tests/_support/openai_client.py", it.server.url]));
    const expected = async (prompt: string, options = {}) =>
      (await generateBatch(it.model, it.tokenizer(prompt), { maxTokens: 12, tokenizer: it.tokenizer, ...options }))
        .map(({ text }) => text);
    assert.deepEqual(got.whole, await expected("Call me"));
    assert.deepEqual(got.several, [...await expected("Call me"), ...await expected("It is")]);
    assert.deepEqual(got.n, await expected("Call me", { n: 2, temperature: 1, seed: 5 }));
    assert.deepEqual([got.streamed, got.usage], [got.n, 26]);
    const [stopped] = await expected("Call me", { stop: ["\0", " the"] });
    assert.deepEqual(got.stopped, [`Call me${stopped}`]);
    assert.equal(got.logprobs[0], null);
    assert.ok(got.logprobs.length > 2 && got.logprobs.slice(1).every((value: number) => value <= 0));
    assert.deepEqual(got.errors, [
      ["NotFoundError", 404, "model_not_found"],
      ["BadRequestError", 400, "context_length_exceeded"],
      ["BadRequestError", 400, null],
    ]);
    assert.deepEqual([got.cancelled, got.models], [true, ["small"]]);
    assert.ok(it.engine.timeline.steps.some(({ events }) => events.some(({ what }) => what === "cancelled")));
  },
});

Deno.test({
  name: "lm-eval's log-likelihoods over HTTP are those of the library",
  ignore: !full || !await runs("python3", "-c", "import lm_eval"),
  async fn() {
    await using it = await served();
    const folder = await Deno.makeTempDir();
    const documents = [
      { context: "Call me", options: [" Ishmael", " the", " a whale"], gold: 0 },
      { context: "It is a truth universally acknowledged, that a single", options: [" man", " ship", " of"], gold: 0 },
      { context: "What comes up must", options: [" come", " be", " go down"], gold: 2 },
    ];
    await Deno.writeTextFile(join(folder, "docs.jsonl"), documents.map((one) => JSON.stringify(one)).join("\n"));
    await Deno.writeTextFile(
      join(folder, "task.yaml"),
      `task: omnibus_local
dataset_path: json
dataset_kwargs: {data_files: {test: ${JSON.stringify(join(folder, "docs.jsonl"))}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{options}}"
doc_to_target: gold
target_delimiter: ""
metric_list: [{metric: acc}]
`,
    );
    const model = [
      "model=small",
      `base_url=${it.server.url}/v1/completions`,
      "num_concurrent=4,max_retries=1,max_length=256,tokenizer_backend=huggingface",
      `tokenizer=${new URL("models/small", root).pathname}`,
    ].join(",");
    await output("python3", [
      ...["-m", "lm_eval", "--model", "local-completions", "--model_args", model, "--tasks", "omnibus_local"],
      ...["--include_path", folder, "--output_path", join(folder, "out"), "--log_samples"],
    ], { HF_DATASETS_OFFLINE: "1", HF_HUB_OFFLINE: "1", HF_HOME: folder });
    const samples: { doc: typeof documents[0]; resps: [[string, string]][] }[] = [];
    for await (const { name } of Deno.readDir(join(folder, "out", "small"))) {
      if (!name.startsWith("samples")) continue;
      const text = await Deno.readTextFile(join(folder, "out", "small", name));
      samples.push(...text.trim().split("\n").map((line) => JSON.parse(line)));
    }
    assert.equal(samples.length, documents.length);
    for (const { doc: { context, options }, resps } of samples) {
      for (const [i, [[value, greedy]]] of resps.entries()) {
        const begin = it.tokenizer.encode(context), tokens = it.tokenizer.encode(context + options[i]);
        const ask = { maxTokens: 1, promptLogprobs: true, topLogprobs: 1 };
        const [answer] = await generateBatch(it.model, padBatch([tokens], { padTokenId: 0 }), ask);
        const scores = answer.promptLogprobs!.slice(begin.length - 1), sum = scores.reduce((a, b) => a + b, 0);
        assert.ok(Math.abs(Number(value) - sum) < 1e-3, `${context}${options[i]}: ${value} against ${sum}`);
        const likeliest = tokens.slice(begin.length).every((id, t) =>
          answer.promptTopLogprobs![begin.length - 1 + t][0].id === id
        );
        assert.equal(greedy, likeliest ? "True" : "False");
      }
    }
  },
});

Deno.test({
  name: "the load generator guidellm measures the server, and no request of its fails",
  ignore: !full || !await runs("guidellm", "--help"),
  async fn() {
    await using it = await served();
    const report = join(await Deno.makeTempDir(), "report.json");
    await output("guidellm", [
      ...["run", "--backend", `kind=openai_http,target=${it.server.url},model=small,request_format=/v1/completions`],
      ...["--profile", "kind=concurrent,streams=4", "--constraint", "kind=max_requests,count=24"],
      ...["--tokenizer", `kind=huggingface_auto,model=${new URL("models/small", root).pathname}`],
      ...["--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=16"],
      ...["--output", `kind=json,path=${report}`, "--disable-console"],
    ], { HF_HUB_OFFLINE: "1" });
    const { benchmarks: [{ metrics }] } = JSON.parse(await Deno.readTextFile(report));
    const totals = metrics.request_totals;
    assert.deepEqual([totals.errored, totals.incomplete], [0, 0]);
    assert.ok(totals.successful >= 24);
    const failed = it.log.filter(({ path, status }) => path === "/v1/completions" && status !== 200);
    assert.deepEqual(failed, []);
  },
});
