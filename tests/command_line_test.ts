import assert from "node:assert/strict";
import { runs } from "./_support/programs.ts";
import settings from "../deno.json" with { type: "json" };
import { chosenSampling, samplingFlags } from "../lib/cli/sampling_flags.ts";
import { samplingSettings } from "../lib/engine/sampling.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import { openGpu } from "../lib/webgpu/device.ts";
import golden from "./fixtures/small_golden.json" with { type: "json" };
import { assertClose } from "./_support/logits.ts";
import { copyOfProject } from "./_support/project_copy.ts";
import { writeTinyModel } from "./_support/tiny_models.ts";

const root = new URL("..", import.meta.url);

/** Runs one of the project's commands. */
function command(name: string, ...args: string[]) {
  return program({}, `lib/cli/${name}.ts`, ...args);
}

/** Runs a program as `deno task` does. What Deno itself says of packages that it looks up is left out. */
async function program(env: Record<string, string>, path: string, ...args: string[]) {
  const output = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", path, ...args],
    cwd: root,
    env: { NO_COLOR: "1", ...env },
  }).output();
  const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code: output.code, stdout, stderr: stderr.replaceAll(/^Download .*\n/gm, "") };
}

async function assertRefused(message: RegExp, name: string, ...args: string[]) {
  const { code, stdout, stderr } = await command(name, ...args);
  assert.deepEqual([code, stdout], [2, ""], `${name} ${args.join(" ")}: ${stderr}`);
  assert.equal(stderr.trim().split("\n").length, 1, `more than one line: ${stderr}`);
  assert.match(stderr, message);
  assert.doesNotMatch(stderr.trim(), /\p{Cc}/u);
}

async function temporaryFile(name: string, text: string): Promise<string> {
  const path = `${await Deno.makeTempDir()}/${name}`;
  await Deno.writeTextFile(path, text);
  return path;
}

Deno.test("every command explains itself", async () => {
  for (const [name, task] of Object.entries(settings.tasks)) {
    const [, path] = task.match(/^deno run -A (\S+\.ts)$/)!;
    const { code, stdout, stderr } = await program({}, path, "--help");
    assert.deepEqual([code, stderr], [0, ""], name);
    assert.match(stdout, new RegExp(`^Usage: deno task ${name} `));
  }
});

Deno.test("generate refuses what it cannot do, in one line", async () => {
  const cores = navigator.hardwareConcurrency, prompt = ["generate", "--prompt", "a"] as const;
  await assertRefused(/There is no prompt/, "generate");
  await assertRefused(/Unknown option '--promt'/, "generate", "--promt", "a");
  await assertRefused(
    /--max-tokens must be a whole number from 1 up: it is "0"/,
    "generate",
    "--prompt",
    "a",
    "--max-tokens",
    "0",
  );
  await assertRefused(/it is "NaN"/, "generate", "--prompt", "a", "--max-tokens", "NaN");
  await assertRefused(/There is no model "none".*models\/\.$/m, "generate", "--prompt", "a", "--model", "none");
  await assertRefused(/Get it: deno task model some\/one/, "generate", "--prompt", "a", "--model", "some/one");
  await assertRefused(/Cannot use backend "abacus"/, "generate", "--prompt", "a", "--backend", "abacus");
  for (const threads of ["5000", "100000000000"]) {
    const message = new RegExp(`Cannot run on ${threads} threads: .* from 1 to ${cores}, the cores`);
    await assertRefused(message, "generate", "--prompt", "a", "--threads", threads);
  }
  await assertRefused(/--threads must be a whole number from 1 up: it is "0"/, ...prompt, "--threads", "0");
  await assertRefused(/--lanes must be a whole number from 1 up: it is "1.5"/, ...prompt, "--lanes", "1.5");
  for (const backend of ["tensorflow", "wasm"]) {
    const message = /--lanes cannot be more than the threads: \w+ runs on \d+ here.* It is "5000"\./;
    await assertRefused(message, ...prompt, "--backend", backend, "--lanes", "5000");
  }
  if (cores > 1) await assertRefused(/Cannot divide 1 row into 2 lanes/, ...prompt, "--lanes", "2");
  const badValues: [RegExp, ...string[]][] = [
    [/--temperature must be a number: it is "hot"/, "--temperature", "hot"],
    [/--min-p must be a number: it is ""/, "--min-p", ""],
    [/Cannot sample with topP 95: it is a number from 0 to 1/, "--top-p", "95"],
    [
      /--presence-penalty needs a value. One that begins with a dash .* equals sign/,
      "--presence-penalty",
      "-1",
    ],
    [/Cannot filter in the order "mine": the orders are vllm and huggingface/, "--filter-order", "mine"],
    [/--seed must be a whole number from 0 up: it is "x"/, "--seed", "x"],
    [/--n must be a whole number from 1 up: it is "0"/, "--n", "0"],
    [/Cannot use stop text 1: it is empty/, "--stop", "a", "--stop", ""],
    [/--top-logprobs must be a whole number from 0 up: it is "all"/, "--top-logprobs", "all"],
    [/Cannot use topLogprobs 99999: it must be a whole number from 0 to 50257/, "--top-logprobs", "99999"],
  ];
  for (const [message, ...flags] of badValues) await assertRefused(message, ...prompt, ...flags);
  await assertRefused(/There is no dtype "int3"/, "generate", "--prompt", "a", "--dtype", "int3");
  await assertRefused(/no activations "some": use static or dynamic/, ...prompt, "--activations", "some");
  await assertRefused(
    /Cannot use int8 on the cpu backend/,
    "generate",
    "--prompt",
    "a",
    "--backend",
    "cpu",
    "--dtype",
    "int8",
  );
  await assertRefused(
    /prompt has 2 and the model holds 256\. Lower maxTokens to 254/,
    "generate",
    "--prompt",
    "Call me",
    "--max-tokens",
    "300",
  );
  await assertRefused(/its array is empty/, "generate", "--prompts", await temporaryFile("prompts.json", "[]"));
  await assertRefused(/must hold an array/, "generate", "--prompts", await temporaryFile("prompts.json", "[1]"));
  await assertRefused(
    /inputIds\[0\]\[0\]: it is 99999/,
    "generate",
    "--prompts",
    await temporaryFile("prompts.json", "[[99999]]"),
  );
  await assertRefused(
    /a prompt of 400 tokens: the model holds 256/,
    "generate",
    "--prompts",
    await temporaryFile("p.json", JSON.stringify([Array(400).fill(1)])),
  );
  const folder = await writeTinyModel({ seed: 1 });
  await Deno.remove(`${folder}/config.json`);
  await assertRefused(/there is no readable config\.json/, "generate", "--prompt", "a", "--model", folder);
});

Deno.test("sweep refuses what it cannot do, in one line", async () => {
  await assertRefused(/--batch-sizes must be a whole number from 1 up: it is "0"/, "sweep", "--batch-sizes", "1,0");
  await assertRefused(/it is "-4"/, "sweep", "--batch-sizes=-4");
  await assertRefused(/it is "two"/, "sweep", "--repeats", "two");
  await assertRefused(/--chart must end in \.svg/, "sweep", "--chart", "chart.png");
  await assertRefused(/There is no model "gpt5"/, "sweep", "--model", "gpt5");
});

Deno.test("generate --json prints the reference's answers, with prompts as text or as token ids", async () => {
  const chosen = golden.slice(0, 4), flags = ["--max-tokens", "24", "--ignore-eos", "--logprobs", "--json"];
  const prompts = await temporaryFile(
    "prompts.json",
    JSON.stringify([chosen[0].prompt, ...chosen.slice(1).map((row) => row.promptTokens)]),
  );
  const gpu = await openGpu().catch(() => null);
  for (const backend of ["auto", "wasm", ...gpu ? ["webgpu"] : []]) {
    const { code, stdout, stderr } = await command("generate", "--backend", backend, "--prompts", prompts, ...flags);
    assert.deepEqual([code, stderr], [0, ""], backend);
    const answers = JSON.parse(stdout);
    assert.equal(answers.length, chosen.length);
    for (const [i, answer] of answers.entries()) {
      const { promptTokens, tokens, text, logprobs } = chosen[i];
      assert.deepEqual(answer.promptTokens, promptTokens);
      assert.deepEqual([answer.tokens, answer.text, answer.finishReason], [tokens, text, "length"], backend);
      assertClose(answer.logprobs, logprobs, 2e-3, backend);
    }
    assert.equal(answers[0].prompt, chosen[0].prompt);
    assert.ok(answers.every((answer: object) => !("seed" in answer) && !("topLogprobs" in answer)), "greedy");
  }
});

Deno.test("generate draws n answers to each prompt, and the seed that it names gives the same again", async () => {
  const prompts = ["--prompt", "Call me", "--prompt", "Never have I ever"];
  const flags = [
    "--temperature",
    "1",
    "--n",
    "2",
    "--max-tokens",
    "8",
    "--ignore-eos",
    "--top-logprobs",
    "3",
    "--json",
  ];
  const generate = async (...more: string[]) => {
    const { code, stdout, stderr } = await command("generate", ...flags, ...more);
    assert.deepEqual([code, stderr], [0, ""]);
    return JSON.parse(stdout);
  };
  const unseeded = await generate("--prompt", "Call me");
  const again = await generate("--prompt", "Call me", "--seed", `${unseeded[0].seed}`);
  assert.deepEqual(again, unseeded);
  const answers = await generate(...prompts, "--seed", "7");
  assert.deepEqual(answers.map(({ prompt }: { prompt: string }) => prompt), [
    ...Array(2).fill("Call me"),
    ...Array(2).fill("Never have I ever"),
  ]);
  const texts = [...answers, ...unseeded].map(({ text }) => text);
  assert.equal(new Set(texts).size, 6, "other draws for each answer, and with each seed");
  for (const { tokens, logprobs, topLogprobs, seed } of answers) {
    assert.deepEqual([tokens.length, logprobs.length, topLogprobs.length, seed], [8, 8, 8, 7]);
    for (const [i, top] of topLogprobs.entries()) {
      assert.equal(top.length, 3);
      const rank = top.findIndex(({ id }: { id: number }) => id === tokens[i]);
      if (rank < 0) assert.ok(logprobs[i] <= top[2].logprob);
      else assert.equal(logprobs[i], top[rank].logprob);
    }
  }
});

Deno.test("the flags for choosing tokens say what the options of the same names do", () => {
  const flags = Object.keys(samplingFlags).map((name, i) => [name, name === "filter-order" ? "vllm" : `${i + 1}`]);
  const camelCase = (name: string) => name.replace(/-./g, ([, letter]) => letter.toUpperCase());
  const options = flags.map(([name, value]) => [camelCase(name), name === "filter-order" ? value : Number(value)]);
  assert.deepEqual(chosenSampling(Object.fromEntries(flags)), Object.fromEntries(options));
  const settings = samplingSettings({ seed: 1 }, { vocabSize: 97 });
  assert.deepEqual(samplingSettings({ ...chosenSampling({}), seed: 1 }, { vocabSize: 97 }), settings, "no flags");
  assert.deepEqual(options.map(([name]) => name).sort(), Object.keys(settings).filter((n) => n !== "logitBias").sort());
});

Deno.test("generate ends an answer before a stop text that lies across tokens, and goes on with other rows", async () => {
  const [stopped, other] = golden, tokenizer = await AutoTokenizer.fromPretrained("models/small");
  const before = tokenizer.decode(stopped.tokens.slice(0, 5)),
    stop = stopped.text.slice(before.length - 2, before.length + 2);
  const cut = stopped.text.indexOf(stop);
  assert.ok(cut > 0 && !other.text.includes(stop));
  const flags = ["--stop", "not there", "--stop", stop, "--max-tokens", "24", "--ignore-eos"];
  const prompts = [stopped, other].flatMap(({ prompt }) => ["--prompt", prompt]);
  const { stdout } = await command("generate", ...prompts, ...flags);
  assert.equal(stdout, `${stopped.prompt}${stopped.text.slice(0, cut)}\n${other.prompt}${other.text}\n`);
  const answers = JSON.parse((await command("generate", ...prompts, ...flags, "--json")).stdout);
  const ends = answers.map(({ text, finishReason }: Record<string, unknown>) => [text, finishReason]);
  assert.deepEqual(ends, [[stopped.text.slice(0, cut), "stop"], [other.text, "length"]]);
});

Deno.test("generate prints every row's whole text, in order", async () => {
  const prompts = golden.slice(0, 3), flags = prompts.flatMap(({ prompt }) => ["--prompt", prompt]);
  const { code, stdout } = await command("generate", ...flags, "--max-tokens", "24", "--ignore-eos");
  assert.equal(code, 0);
  assert.equal(stdout, prompts.map(({ prompt, text }) => `${prompt}${text}\n`).join(""));
});

Deno.test("sweep --compare puts results side by side, and refuses what is none", async () => {
  const sweepOf = (backend: string, rates: [number, number][], changes = {}) =>
    temporaryFile(
      "sweep.json",
      JSON.stringify({
        ...{ schemaVersion: 1, created: "2026-01-02T03:04:05Z", model: { name: "gpt2" }, dtype: "float32", backend },
        ...{ versions: { backend: `${backend} on this` }, promptTokens: 7, maxTokens: 10 },
        points: rates.map(([batchSize, throughput]) => (
          { batchSize, throughput, repeats: [batchSize * 10 / throughput] }
        )),
        ...changes,
      }),
    );
  const a = await sweepOf("wasm", [[1, 5], [8, 10]]), b = await sweepOf("webgpu", [[8, 30], [1, 20], [64, 90]]);
  const chart = `${await Deno.makeTempDir()}/both.svg`;
  const { code, stdout, stderr } = await command("sweep", "--compare", a, b, "--chart", chart);
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, /^A {2}gpt2, float32, wasm \(wasm on this\), 2026-01-02/m);
  assert.match(stdout, /^ +1 +5\.0 +20\.0 +4\.00x\n +8 +10\.0 +30\.0 +3\.00x\n +64 +90\.0/m);
  const svg = await Deno.readTextFile(chart);
  assert.ok(svg.includes("webgpu") && svg.includes("wasm"));
  await assertRefused(/needs two results or more/, "sweep", "--compare", a);
  await assertRefused(/Files are for --compare/, "sweep", a);
  await assertRefused(/it is no result/, "sweep", "--compare", a, await temporaryFile("x.json", "{}"));
  await assertRefused(/Cannot read the result/, "sweep", "--compare", a, "/none.json");
  const longer = await sweepOf("cpu", [[1, 1]], { maxTokens: 20 });
  await assertRefused(/cannot be compared.*7 and 10; 7 and 20/, "sweep", "--compare", a, longer);
});

Deno.test("sweep prints a row for each batch size and writes results and chart", async () => {
  const folder = await Deno.makeTempDir(), json = `${folder}/new/sweep.json`, chart = `${folder}/sweep.svg`;
  const model = await writeTinyModel({ seed: 1 });
  const sizes = [
    "--batch-sizes",
    "1,3",
    "--max-tokens",
    "4",
    "--repeats",
    "2",
    "--prompt-tokens",
    "mixed",
    "--lanes",
    "2",
  ];
  const { code, stdout, stderr } = await command("sweep", "--model", model, ...sizes, "--json", json, "--chart", chart);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^ +1 .*\n +3 /m);
  const result = JSON.parse(await Deno.readTextFile(json));
  assert.deepEqual([result.schemaVersion, result.maxTokens, result.promptTokens], [1, 4, "mixed"]);
  for (const [i, point] of result.points.entries()) {
    const { batchSize, totalSeconds, throughput, latency, prefillSeconds, decodeSeconds, decodeThroughput } = point;
    assert.deepEqual([batchSize, point.lanes], [[1, 1], [3, 2]][i]);
    assert.ok(Math.abs(throughput - batchSize * 4 / totalSeconds) < 1e-9 * throughput);
    assert.ok(Math.abs(latency - totalSeconds / 4) < 1e-9);
    assert.ok(Math.abs(decodeThroughput - batchSize * 3 / decodeSeconds) < 1e-9 * decodeThroughput);
    assert.ok(prefillSeconds > 0 && point.repeats.length === 2 && point.mbu > 0 && point.mfu > 0);
  }
  assert.deepEqual([result.points[0].speedup, result.points[0].paddingShare], [1, 0]);
  assert.ok(result.points[1].paddingShare > 0);
  assert.match(await Deno.readTextFile(chart), /^<svg/);
});

Deno.test("an output that cannot be written is refused before anything is measured", async () => {
  const file = await temporaryFile("file", ""), model = await writeTinyModel({ seed: 1 });
  for (const [flag, below] of [["json", "r.json"], ["chart", "c.svg"]]) {
    const message = new RegExp(`--${flag} cannot be written: .* Name a file`);
    for (const command of ["sweep", "bench"]) await assertRefused(message, command, `--${flag}`, `${file}/${below}`);
  }
  await assertRefused(/--json cannot be written: /, "sweep", "--model", model, "--json", `${file}/..`);
  await assertRefused(/--chart cannot be written/, "sweep", "--compare", "a", "b", "--chart", `${file}/c.svg`);
  const quantize = ["--dtype", "int8", "--output", `${file}/model`];
  await assertRefused(/Cannot write to .*file\/model: /, "quantize", model, ...quantize);
  await assertRefused(/Cannot put a model into .*file: /, "model", "gpt2", "--into", file);
});

Deno.test("perplexity says how well a text is predicted, and beside float32 what another dtype costs", async () => {
  await assertRefused(/Name one file/, "perplexity");
  const text = "models/small/heldout/kjv.txt",
    flags = ["--max-tokens", "256", "--window", "64", "--backend", "tensorflow"];
  const noise = await temporaryFile("noise.txt", "zq xv ".repeat(400));
  await assertRefused(/The text has \d+ tokens, and 9999 are needed/, "perplexity", noise, "--window", "9999");
  const plain = await command("perplexity", text, ...flags),
    [, own] = plain.stdout.match(/^float32: perplexity (\S+) on 256 /)!;
  const odd = await command("perplexity", noise, ...flags),
    [, far] = odd.stdout.match(/^float32: perplexity (\S+) on 256 /)!;
  assert.ok(Number(own) > 10 && Number(own) < 200 && Number(far) > 2 * Number(own), `${own}, ${far}`);
  const { stdout } = await command("perplexity", text, ...flags, "--dtype", "bfloat16");
  const [, rounded, exact, change] = stdout.match(
    /^bfloat16: perplexity (\S+) on 256 tokens\nfloat32: perplexity (\S+)\. bfloat16 changes it by (\S+)%/,
  )!;
  assert.equal(exact, own);
  assert.ok(Math.abs(100 * (Number(rounded) / Number(exact) - 1) - Number(change)) < 0.01);
});

Deno.test("where its results cannot be kept, as in a read-only clone, a sweep shows them all the same", async () => {
  await using clone = await copyOfProject("read-only");
  await Deno.writeTextFile(`${clone.path}/results`, "a file, in which no file can be made");
  const chart = `${await Deno.makeTempDir()}/chart.svg`, model = await writeTinyModel({ seed: 1 });
  const sizes = ["--batch-sizes", "1", "--max-tokens", "2", "--repeats", "1"];
  const flags = ["--model", model, ...sizes, "--chart", chart];
  const { code, stdout, stderr } = await clone.deno("run", "-A", "lib/cli/sweep.ts", ...flags);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /The results will not be kept: .* Say where with --json FILE\./);
  assert.match(stdout, /^ +1 /m);
  assert.match(stdout, /Results: not kept\nChart: {3}\S*chart\.svg\n$/);
  assert.match(await Deno.readTextFile(chart), /^<svg/);
});

Deno.test("a model that is broken, hostile or of another kind is refused in one line with exit code 2", async () => {
  const weights = await Deno.readFile("models/small/model.safetensors");
  const tokenizer = JSON.parse(await Deno.readTextFile("models/small/tokenizer.json"));
  const withVocabulary = (vocab: unknown) =>
    JSON.stringify({ ...tokenizer, model: { ...tokenizer.model, vocab, merges: [] } });
  const cases: [file: string, content: string | Uint8Array | null, message: RegExp][] = [
    ["config.json", null, /there is no readable config\.json/],
    ["config.json", "{\n\n\x1b[2J\n", /config\.json is not JSON/],
    ["config.json", '{"model_type":"bert"}', /model_type is "bert"/],
    ["config.json", "[]", /it holds \[\], not an object/],
    ["model.safetensors", null, /there is no such file/],
    ["model.safetensors", "", /model\.safetensors/],
    ["model.safetensors", weights.subarray(0, weights.length - 1), /the file has/],
    ["model.safetensors", new Uint8Array(1000).fill(0xff), /model\.safetensors/],
    ["tokenizer.json", null, /holds no tokenizer\.json/],
    ["tokenizer.json", "\n\nno\n\x1b[2JJSON\n", /tokenizer\.json: it is not JSON/],
    ["tokenizer.json", "null", /its model is undefined/],
    ["tokenizer.json", '{"model":{"type":"\\u001b[2J\\n\\n"}}', /its model is {2}\[2J {2}with decoder undefined/],
    ["tokenizer.json", '{"model":{"type":"BPE"},"decoder":{"type":"ByteLevel"}}', /Cannot use .*tokenizer\.json/],
    [
      "tokenizer.json",
      '{"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"decoder":{"type":"ByteLevel"}}',
      /tokenizer/,
    ],
    ["tokenizer.json", withVocabulary({ "<|endoftext|>": 0 }), /has no real token/],
    ["tokenizer.json", withVocabulary([]), /has no real token/],
    ["tokenizer_config.json", "{", /tokenizer_config\.json: it is not JSON/],
  ];
  for (const [file, content, message] of cases) {
    const folder = await Deno.makeTempDir();
    for (const { name } of Deno.readDirSync("models/small")) {
      if (name.endsWith(".json") || name.endsWith(".safetensors")) {
        await Deno.copyFile(`models/small/${name}`, `${folder}/${name}`);
      }
    }
    if (content === null) await Deno.remove(`${folder}/${file}`);
    else {await Deno.writeFile(
        `${folder}/${file}`,
        typeof content === "string" ? new TextEncoder().encode(content) : content,
      );}
    await assertRefused(message, "generate", "--prompt", "a", "--model", folder);
    await Deno.remove(folder, { recursive: true });
  }
  const pickled = await Deno.makeTempDir();
  await Deno.copyFile("models/small/config.json", `${pickled}/config.json`);
  await assertRefused(/convert its weights/, "quantize", pickled, "--dtype", "int8", "--output", `${pickled}/out`);
  await assertRefused(/convert its weights/, "sweep", "--model", pickled, "--json", `${pickled}/r.json`);
});

Deno.test("a value that begins with a dash is refused with how to write it, and then taken", async () => {
  await assertRefused(/--prompt needs a value\. .*: --prompt="-5 degrees"\.$/m, "generate", "--prompt", "-5 degrees");
  await assertRefused(/--model needs a value/, "sweep", "--model", "--json");
  const { code, stdout } = await command("generate", "--prompt=-5 degrees", "--max-tokens", "1");
  assert.equal(code, 0);
  assert.match(stdout, /^-5 degrees/);
});

Deno.test("files that begin with a byte order mark are read as if it were not there", async () => {
  const folder = await Deno.makeTempDir(), flags = ["--max-tokens", "2", "--json"];
  for (const { name } of Deno.readDirSync("models/small")) {
    const from = `models/small/${name}`, to = `${folder}/${name}`;
    if (name.endsWith(".json")) await Deno.writeTextFile(to, "\uFEFF" + await Deno.readTextFile(from));
    else if (name.endsWith(".safetensors")) await Deno.copyFile(from, to);
  }
  const prompts = await temporaryFile("prompts.json", '\uFEFF["Call me"]');
  const marked = await command("generate", "--prompts", prompts, "--model", folder, ...flags);
  assert.equal(marked.code, 0, marked.stderr);
  assert.equal(marked.stdout, (await command("generate", "--prompt", "Call me", ...flags)).stdout);
});

Deno.test("a folder where the user stands does not shadow a model of its name; with ./ it is meant", async () => {
  const here = await Deno.makeTempDir();
  for (const name of ["small", "gpt2", "other"]) await Deno.mkdir(`${here}/${name}`);
  const answer = await program({ INIT_CWD: here }, "lib/cli/generate.ts", "--prompt", "a", "--max-tokens", "1");
  assert.equal(answer.code, 0, answer.stderr);
  for (
    const [model, message] of [
      ["./small", /Cannot load a model from \S+\/small: there is no readable config/],
      ["small/", /Cannot load a model from \S+\/small\/: there is no readable config/],
      ["other", /Cannot load a model from \S+\/other: there is no readable config/],
      ["gpt2", /There is no model "gpt2" in models\/\. For the folder here write \.\/gpt2\./],
    ] as const
  ) {
    const { code, stderr } = await program(
      { INIT_CWD: here },
      "lib/cli/generate.ts",
      "--prompt",
      "a",
      "--model",
      model,
    );
    assert.equal(code, 2);
    assert.match(stderr, message);
  }
});

Deno.test("in a clone with a space, an umlaut, a % and a # in its path, programs and the tests that start others work", async () => {
  await using clone = await copyOfProject("ünder 100% #1");
  const { code, stdout, stderr } = await clone.deno("run", "-A", "lib/cli/generate.ts", "--prompt", "a");
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^a./);
  for (
    const [file, filter] of [["bad_calls", ""], ["boundary", "workers"], ["conformance", "and they fail"], [
      "bench",
      "a worker in",
    ]]
  ) {
    const tests = await clone.deno("test", "-A", "--no-check", `--filter=${filter}`, `tests/${file}_test.ts`);
    assert.equal(tests.code, 0, `${file}: ${tests.stdout}`);
    assert.match(tests.stdout, /\b[1-9]\d* passed/, file);
  }
});

const python = await runs("python3", "-V");

Deno.test({
  name: "all output arrives on a pipe that is set not to block and is read late",
  ignore: !python || Deno.build.os === "windows",
  async fn() {
    const lib = (path: string) => JSON.stringify(import.meta.resolve(`../lib/${path}`));
    const path = await temporaryFile(
      "loud.ts",
      `import { run } from ${lib("cli/command.ts")};
import { print } from ${lib("util/print.ts")};
await run({ name: "loud", summary: "", flags: {} }, () => {
  console.log("a".repeat(200_000));
  console.error("b".repeat(200_000));
  print("c".repeat(200_000));
  return Promise.resolve();
});`,
    );
    // Reads only when the pipe is full: then the program has met a write that would block.
    const reader = `
import array, fcntl, os, subprocess, sys, termios
r, w = os.pipe()
os.set_blocking(w, False)
program = subprocess.Popen(sys.argv[1:], stdout=w, stderr=w)
os.close(w)
waiting = array.array("i", [0])
while waiting[0] < 65536 and program.poll() is None:
    fcntl.ioctl(r, termios.FIONREAD, waiting)
with os.fdopen(r, "rb") as pipe:
    data = pipe.read()
print(program.wait(), len(data), *(data.count(letter) for letter in (b"a", b"b", b"c")))
`;
    const args = ["-c", reader, Deno.execPath(), "run", "-A", path];
    const { stdout } = await new Deno.Command("python3", { args, cwd: root }).output();
    assert.equal(new TextDecoder().decode(stdout).trim(), "0 600002 200000 200000 200000");
  },
});

Deno.test("a reader who leaves early, as `head` does, is no error", async () => {
  const args = ["run", "-A", "lib/cli/sweep.ts", "--help"];
  const child = new Deno.Command(Deno.execPath(), { args, cwd: root, stdout: "piped", stderr: "piped" }).spawn();
  await child.stdout.cancel();
  const [{ code }, said] = await Promise.all([child.status, new Response(child.stderr).text()]);
  assert.deepEqual([code, said], [0, ""]);
});
