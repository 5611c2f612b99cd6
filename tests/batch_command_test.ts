/** `deno task batch` and `deno task worker`, as whole programs, on the shipped model. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { Answerer } from "../lib/batch/answer.ts";
import { readEntry } from "../lib/batch/entry.ts";
import { runBatch } from "../lib/batch/run.ts";
import { AutoModelForCausalLM, AutoTokenizer, Engine, generateBatch } from "../lib/mod.ts";
import { lines } from "../lib/util/lines.ts";
import { seededRandom } from "../lib/util/random.ts";
import { batchLines, choicesById, differing, resultsIn } from "./_support/batch_lines.ts";
import { copyOfProject } from "./_support/project_copy.ts";

const root = new URL("..", import.meta.url), full = Deno.env.has("OMNIBUS_FULL");

function spawn(name: string, args: string[], options: Deno.CommandOptions = {}): Deno.ChildProcess {
  const env = { NO_COLOR: "1" }, all = ["run", "-A", `lib/cli/${name}.ts`, ...args];
  return new Deno.Command(Deno.execPath(), { args: all, cwd: root, env, stdout: "piped", stderr: "piped", ...options })
    .spawn();
}

async function batch(...args: string[]) {
  const { code, stdout, stderr } = await spawn("batch", args).output();
  const [said, complained] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, stdout: said, stderr: complained };
}

async function batchFiles(lines: readonly string[]): Promise<{ input: string; output: string }> {
  const folder = await Deno.makeTempDir({ prefix: "omnibus-batch-" }), input = join(folder, "in.jsonl");
  await Deno.writeTextFile(input, lines.join("\n") + "\n");
  return { input, output: join(folder, "out.jsonl") };
}

const line = (custom_id: string, body: unknown) =>
  JSON.stringify({ custom_id, method: "POST", url: "/v1/completions", body });

Deno.test("each bad line of a batch becomes an error line with a code and a sentence, the others are answered, and the exit code is 1", async () => {
  const good = line("good", { model: "small", prompt: "Call me", max_tokens: 3, temperature: 0, n: 2 });
  const bad: [code: string, message: RegExp, line: string][] = [
    ["invalid_json_line", /is no JSON/, `{"custom_id": "broken`],
    ["model_not_found", /There is no model "gpt-5": use "small"/, line("model", { model: "gpt-5", prompt: "a" })],
    [
      "invalid_request_error",
      /max_tokens -1: it must be a whole number/,
      line("tokens", { prompt: "a", max_tokens: -1 }),
    ],
    ["context_length_exceeded", /the model holds 256/, line("long", { prompt: "word ".repeat(300), max_tokens: 1 })],
    ["invalid_request_error", /Cannot use prompt/, line("none", {})],
    ["duplicate_custom_id", /stands in a line before/, good],
  ];
  const { input, output } = await batchFiles([good, ...bad.map(([, , line]) => line)]);
  const { code, stdout, stderr } = await batch("--input", input, "--output", output);
  assert.equal(code, 1, stderr);
  assert.match(stdout, /out\.jsonl is ready: 7 results, 6 errors, \d+ tokens\/s\.\n$/);
  assert.match(stderr, /^lines +7 of 7 +\d+ tokens\/s$/m);
  const results = resultsIn(await Deno.readTextFile(output));
  const [answer] = results.filter(({ error }) => !error), body = answer.response!.body;
  assert.equal(answer.custom_id, "good");
  assert.deepEqual([answer.response!.status_code, body.model, (body.choices as unknown[]).length], [200, "small", 2]);
  for (const [i, [code, message]] of bad.entries()) {
    const { error } = results.find(({ error }) => error?.line === i + 2)!;
    assert.equal(error!.code, code);
    assert.match(error!.message, message);
  }
  const again = await batch("--input", input, "--output", output);
  assert.deepEqual([again.code, again.stdout.match(/7 of them from before/)?.length], [1, 1], again.stderr);
});

Deno.test("batch refuses what it cannot do, in one line", async () => {
  const { input, output } = await batchFiles(batchLines(1)), files = ["--input", input, "--output", output];
  const cases: [RegExp, ...string[]][] = [
    [/Say --input FILE\.jsonl and --output FILE\.jsonl/, "--input", input],
    [/--input cannot be read: .*none\.jsonl/, "--input", `${input}/none.jsonl`, "--output", output],
    [/--output must be a file: \/dev\/null/, "--input", input, "--output", "/dev/null"],
    [/There is no model "none"/, ...files, "--model", "none"],
    [/--max-actors needs --ray/, ...files, "--max-actors", "2"],
    [/--ray must be auto, HOST:PORT or local:N: it is "local"/, ...files, "--ray", "local"],
    [/--ray must be .* "ray:\/\/host:1"\. From outside a cluster, `ray job submit`/, ...files, "--ray=ray://host:1"],
    [/--min-actors cannot be more than/, ...files, "--ray", "local:1", "--min-actors", "3", "--max-actors", "2"],
  ];
  for (const [message, ...args] of cases) {
    const { code, stdout, stderr } = await batch(...args);
    assert.deepEqual([code, stdout, stderr.trim().split("\n").length], [2, "", 1], stderr);
    assert.match(stderr, message);
  }
});

Deno.test("without Ray, batch --ray says in one line what would be installed, and installs nothing", async () => {
  const { input, output } = await batchFiles(batchLines(1));
  await using copy = await copyOfProject("no ray");
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--node-modules-dir=manual",
      "lib/cli/batch.ts",
      "--input",
      input,
      "--output",
      output,
      "--ray=local:2",
    ],
    cwd: copy.path,
    env: { NO_COLOR: "1", PATH: "/nonexistent" },
  }).output();
  assert.equal(code, 2);
  assert.match(
    new TextDecoder().decode(stderr),
    /^batch: Ray is not installed\. `deno task setup --ray` installs Ray 2\.60 .* \(a download of about 170 MB, .*\)\.\n$/,
  );
  assert.ok(!await Deno.stat(join(copy.path, ".ray")).catch(() => null));
});

Deno.test("a batch that is killed at random moments ends with what an undisturbed run gives, each line once", async () => {
  const count = full ? 10_000 : 200, kills = full ? 20 : 2, random = seededRandom(3);
  const { input, output } = await batchFiles(batchLines(count)), partial = `${output}.partial`;
  const whole = await undisturbed(input), step = 2 * whole.bytes / kills;
  let killed = 0, bytes = 0;
  for (let goal = 0; killed < kills; goal = bytes + random() * step) {
    const child = spawn("batch", ["--input", input, "--output", output], { stdout: "null", stderr: "null" });
    let ended = false;
    void child.status.then(() => ended = true);
    while (!ended && bytes < goal) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      bytes = (await Deno.stat(partial).catch(() => ({ size: 0 }))).size;
    }
    if (ended) break;
    child.kill("SIGKILL");
    await child.status;
    killed++;
  }
  const { code, stdout, stderr } = await batch("--input", input, "--output", output);
  assert.equal(code, 0, stderr);
  assert.match(stdout, new RegExp(`${count} results.*, 0 errors`));
  const choices = choicesById(resultsIn(await Deno.readTextFile(output))), ties = differing(choices, whole.choices);
  console.log({ count, killed, ties });
  assert.ok(killed > 1, `${killed} times`);
  assert.equal(choices.size, count);
  assert.ok(ties <= 0.005 * count, `${ties} of ${count} differ`);
  assert.ok(!await Deno.stat(partial).catch(() => null));
});

/** What a batch gives in one go, and how large its output is. */
async function undisturbed(input: string): Promise<{ choices: Map<string, string>; bytes: number }> {
  using model = await AutoModelForCausalLM.fromPretrained("models/small");
  const tokenizer = await AutoTokenizer.fromPretrained("models/small");
  await using engine = new Engine({ model });
  const answerer = new Answerer(engine, { name: "small", config: model.config, tokenizer });
  const output = `${input}.whole`;
  await runBatch({ input, output, settings: {}, limit: 128, answer: (entry) => answerer.answer(entry) });
  const text = await Deno.readTextFile(output);
  return { choices: choicesById(resultsIn(text)), bytes: text.length };
}

Deno.test("the worker answers each line as it ends, as batch does, and drains when its input ends", async () => {
  const asked = batchLines(60, 2), child = spawn("worker", ["--max-batch", "8"], { stdin: "piped" });
  const writer = child.stdin.getWriter(), write = (text: string) => writer.write(new TextEncoder().encode(text + "\n"));
  const answers = lines(child.stdout), next = async () => JSON.parse((await answers.next()).value!);
  await write("{");
  const first = await next(); // while its input is open
  assert.deepEqual([first.id, first.custom_id, first.error.code], ["line-1", null, "invalid_json_line"]);
  await write(asked[0]);
  const second = await next();
  assert.deepEqual([second.id, second.custom_id, second.error], ["line-2", "request-0", null]);
  void write(asked.slice(1).join("\n")).then(() => writer.close());
  const results = [second];
  for await (const line of answers) results.push(JSON.parse(line));
  const { code, stderr } = { ...await child.status, stderr: await new Response(child.stderr).text() };
  assert.deepEqual([code, stderr], [0, ""]);

  using model = await AutoModelForCausalLM.fromPretrained("models/small");
  const tokenizer = await AutoTokenizer.fromPretrained("models/small"), expected = new Map<string, string>();
  for (const text of asked) {
    const { custom_id, body } = JSON.parse(text), { max_tokens: maxTokens, temperature, top_k: topK, seed } = body;
    const [{ text: answer }] = await generateBatch(model, tokenizer([body.prompt]), {
      ...{ maxTokens, temperature, topK, seed, tokenizer },
    });
    expected.set(custom_id, answer!);
  }
  assert.equal(results.length, asked.length);
  const wrong = results.filter(({ custom_id, response }) => response.body.choices[0].text !== expected.get(custom_id));
  assert.ok(wrong.length <= 1, JSON.stringify(wrong));
  assert.notDeepEqual(results.map(({ id }) => id), results.map((_, i) => `line-${i + 2}`), "short ones do not wait");
});

Deno.test("a body may ask for more answers than the queue holds, and an engine that takes no more ends the run", async () => {
  using model = await AutoModelForCausalLM.fromPretrained("models/small");
  const tokenizer = await AutoTokenizer.fromPretrained("models/small");
  await using engine = new Engine({ model, maxBatch: 16, maxQueue: 40 });
  const answerer = new Answerer(engine, { name: "small", config: model.config, tokenizer });
  const entry = (number: number, body: unknown) => readEntry({ number, text: line(`line ${number}`, body) });
  const body = { prompt: ["a", "b", "c", "d", "e"], n: 30, max_tokens: 2, seed: 1 };
  const large = [entry(1, body), entry(2, body)].map((one) => answerer.answer(one));
  for (const { response } of await Promise.all(large)) assert.equal((response!.body.choices as unknown[]).length, 150);
  const tooMany = await answerer.answer(entry(3, { prompt: "a", n: 50, max_tokens: 1 }));
  assert.match(tooMany.error!.message, /maxQueue|n /);
  await engine.stop();
  await assert.rejects(answerer.answer(entry(4, { prompt: "a" })), /Cannot take a request/);
});
