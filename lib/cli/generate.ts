/** `deno task generate`: text from prompts, as it comes. */

import { padBatch } from "../tokenizer/batch.ts";
import { generateSteps } from "../engine/generate.ts";
import { AutoTokenizer } from "../tokenizer/tokenizer.ts";
import { run, UsageError, userPath, wholeNumber } from "./command.ts";
import { chosenParallelism, loadModel, modelFlags } from "./model_flags.ts";
import { Printer } from "./printer.ts";
import { chosenSampling, samplingFlags } from "./sampling_flags.ts";
import { parseJson } from "../util/json.ts";
import { print } from "../util/print.ts";

await run({
  name: "generate",
  summary: "Continues prompts, all of them in one batch. The text goes to stdout as it comes.",
  flags: {
    prompt: { type: "string", multiple: true, value: "TEXT", help: "a prompt; may be given several times" },
    prompts: {
      type: "string",
      value: "FILE.json",
      help: "an array of prompts, each a string or an array of token ids",
    },
    ...modelFlags,
    "max-tokens": { type: "string", value: "N", help: "the most new tokens of each prompt (default 40)" },
    ...samplingFlags,
    n: { type: "string", value: "N", help: "answers to each prompt; they differ by their draws (default 1)" },
    stop: {
      type: "string",
      multiple: true,
      value: "TEXT",
      help: "end an answer before TEXT; may be given several times",
    },
    "ignore-eos": { type: "boolean", help: "go on after the end-of-text token" },
    logprobs: { type: "boolean", help: "with --json: the logarithm of each token's probability" },
    "top-logprobs": { type: "string", value: "N", help: "with --json: the same of the N most likely tokens each time" },
    json: { type: "boolean", help: "print one JSON array at the end instead of text" },
  },
}, async (flags) => {
  const prompts = await readPrompts(flags.prompt, flags.prompts);
  const maxTokens = wholeNumber(flags["max-tokens"], "max-tokens", 40);
  const n = wholeNumber(flags.n, "n", 1), sampling = chosenSampling(flags);
  const topLogprobs = wholeNumber(flags["top-logprobs"], "top-logprobs", 0, 0);
  const { model, folder } = await loadModel(flags.model ?? "small", flags);
  using _ = model;
  const tokenizer = await AutoTokenizer.fromPretrained(folder);
  const rows = prompts.map((prompt) => typeof prompt === "string" ? tokenizer(prompt).inputIds[0] : prompt);
  const texts = prompts.map((prompt) => typeof prompt === "string" ? prompt : tokenizer.decode(prompt));
  const inputs = padBatch(rows, { padTokenId: tokenizer.padTokenId });
  const steps = generateSteps(model, inputs, {
    ...sampling,
    ...{ maxTokens, n, tokenizer, stop: flags.stop, ignoreEos: flags["ignore-eos"] },
    ...{ logprobs: flags.logprobs, topLogprobs, parallelism: chosenParallelism(flags, model) },
  });
  let next = await steps.next();
  const printer = flags.json ? undefined : new Printer(texts.flatMap((text) => Array(n).fill(text)), print);
  for (; !next.done; next = await steps.next()) printer?.add(next.value);
  if (printer) return printer.finish();
  const answers = next.value.map(({ tokens, text, finishReason, logprobs, topLogprobs, seed }, i) => ({
    prompt: prompts[Math.floor(i / n)],
    promptTokens: rows[Math.floor(i / n)],
    ...{ tokens, text, finishReason, logprobs, topLogprobs, seed }, // JSON leaves out what is undefined
  }));
  console.log(JSON.stringify(answers, null, 1));
});

/** The prompts of `--prompt` and `--prompts`. Throws a UsageError if there are none, or the file is not what it should be. */
async function readPrompts(texts: string[] = [], file: string | undefined): Promise<(string | number[])[]> {
  const prompts: (string | number[])[] = [...texts];
  if (file !== undefined) prompts.push(...await readPromptFile(userPath(file)));
  if (prompts.length === 0) throw new UsageError("There is no prompt: give --prompt TEXT or --prompts FILE.json.");
  return prompts;
}

async function readPromptFile(path: string): Promise<(string | number[])[]> {
  let json: unknown;
  try {
    json = parseJson(await Deno.readTextFile(path));
  } catch (error) {
    throw new UsageError(`Cannot read prompts from ${path}: ${(error as Error).message}.`);
  }
  const isPrompt = (value: unknown) =>
    typeof value === "string" || Array.isArray(value) && value.every((id) => typeof id === "number");
  if (!Array.isArray(json) || !json.every(isPrompt)) {
    throw new UsageError(
      `Cannot read prompts from ${path}: it must hold an array of strings, or of arrays of token ids.`,
    );
  }
  if (json.length === 0) throw new UsageError(`There is no prompt in ${path}: its array is empty.`);
  return json.map((prompt, i) => {
    if (prompt.length === 0 && typeof prompt !== "string") {
      throw new UsageError(`Prompt ${i} in ${path} has no token ids.`);
    }
    return prompt;
  });
}
