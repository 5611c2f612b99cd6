/** `deno task generate`: text from prompts, as it comes. */

import { padBatch } from "../tokenizer/batch.ts";
import { generateSteps } from "../engine/generate.ts";
import { AutoTokenizer } from "../tokenizer/tokenizer.ts";
import { run, UsageError, userPath, wholeNumber } from "./command.ts";
import { chosenParallelism, loadModel, modelFlags } from "./model_flags.ts";
import { Printer } from "./printer.ts";
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
    "ignore-eos": { type: "boolean", help: "go on after the end-of-text token" },
    logprobs: { type: "boolean", help: "with --json: the logarithm of each token's probability" },
    json: { type: "boolean", help: "print one JSON array at the end instead of text" },
  },
}, async (flags) => {
  const prompts = await readPrompts(flags.prompt, flags.prompts);
  const maxTokens = wholeNumber(flags["max-tokens"], "max-tokens", 40);
  const { model, folder } = await loadModel(flags.model ?? "small", flags);
  using _ = model;
  const tokenizer = await AutoTokenizer.fromPretrained(folder);
  const rows = prompts.map((prompt) => typeof prompt === "string" ? tokenizer(prompt).inputIds[0] : prompt);
  const texts = prompts.map((prompt) => typeof prompt === "string" ? prompt : tokenizer.decode(prompt));
  const parallelism = chosenParallelism(flags, model);
  const options = { maxTokens, parallelism, ignoreEos: flags["ignore-eos"], logprobs: flags.logprobs };
  const inputs = padBatch(rows, { padTokenId: tokenizer.padTokenId });
  const printer = flags.json ? undefined : new Printer(texts, tokenizer, print);

  const steps = generateSteps(model, inputs, options);
  let next = await steps.next();
  for (; !next.done; next = await steps.next()) printer?.add(next.value.tokens);
  if (printer) return printer.finish();
  const answers = next.value.map(({ tokens, finishReason, logprobs }, i) => ({
    prompt: prompts[i],
    promptTokens: rows[i],
    tokens,
    text: tokenizer.decode(tokens),
    finishReason,
    ...logprobs && { logprobs },
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
