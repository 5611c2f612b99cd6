/** `deno task perplexity`: how well a model predicts a text of the user's, and what its dtype costs. */

import { predict } from "../bench/perplexity.ts";
import { AutoTokenizer } from "../tokenizer/tokenizer.ts";
import { run, UsageError, userPath, wholeNumber } from "./command.ts";
import { loadModel, modelFlags, type ModelFlagValues } from "./model_flags.ts";

await run({
  name: "perplexity",
  summary: "Says how well a model predicts a text of yours; with another dtype than float32, beside float32.",
  words: "FILE.txt",
  flags: {
    ...modelFlags,
    window: { type: "string", value: "N", help: "tokens that are read as a text of their own (default 128)" },
    "max-tokens": { type: "string", value: "N", help: "the most tokens of the text that are read (default 16384)" },
  },
}, async ({ window, "max-tokens": maxTokens, ...flags }, files) => {
  if (files.length !== 1) throw new UsageError("Name one file with the text.");
  const length = wholeNumber(window, "window", 128, 2), most = wholeNumber(maxTokens, "max-tokens", 16384);
  const text = await Deno.readTextFile(userPath(files[0])).catch((error) => {
    throw new UsageError(`Cannot read ${files[0]}: ${error.message}.`);
  });
  const own = await measure(text, flags, length, most);
  console.log(`${own.dtype}: perplexity ${own.perplexity.toFixed(3)} on ${own.tokens.toLocaleString("en")} tokens`);
  if (own.dtype === "float32") return;
  const wide = await measure(text, { ...flags, dtype: "float32" }, length, most);
  const change = 100 * (own.perplexity / wide.perplexity - 1),
    choices = own.choices.flat(),
    exact = wide.choices.flat();
  const same = choices.filter((id, i) => id === exact[i]).length / choices.length;
  console.log(
    `float32: perplexity ${wide.perplexity.toFixed(3)}. ${own.dtype} changes it by ${
      change.toFixed(2)
    }%, and makes the ` +
      `same first choice after ${(100 * same).toFixed(1)}% of the tokens.`,
  );
});

/** Reads the text in rows of so many tokens; what is left over at its end is not read. */
async function measure(text: string, flags: ModelFlagValues, length: number, most: number) {
  const { model, folder } = await loadModel(flags.model ?? "small", flags);
  using _ = model;
  const tokens = (await AutoTokenizer.fromPretrained(folder)).encode(text).slice(0, most);
  const count = Math.floor(tokens.length / length);
  if (count === 0) {
    throw new UsageError(
      `The text has ${tokens.length} tokens, and ${length} are needed: use a longer one or --window.`,
    );
  }
  const rows = Array.from({ length: count }, (_, i) => tokens.slice(i * length, (i + 1) * length));
  return { ...await predict(model, rows), dtype: model.dtype, tokens: count * length };
}
