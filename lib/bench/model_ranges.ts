/** The ranges of activations of a model's weights: those in its file, else those that were measured once, else measured now. */

import { join } from "node:path";
import type { ActivationRanges } from "../backend/int8.ts";
import type { Backend } from "../backend/types.ts";
import type { GPT2Config } from "../gpt2/config.ts";
import { readConfig } from "../gpt2/config_file.ts";
import { loadGPT2, randomGPT2 } from "../gpt2/load.ts";
import { checkpointWeights } from "../gpt2/weights.ts";
import { AutoTokenizer } from "../tokenizer/tokenizer.ts";
import { seededRandom } from "../util/random.ts";
import { singleFlight } from "../util/single_flight.ts";
import { measureActivationRanges, type MeasuredRanges } from "./activation_ranges.ts";
import { seedDigest, storedRanges, storeRanges, weightsDigest } from "./stored_ranges.ts";

/** A text in the model's folder, to measure on. Without it the model makes one. */
const TEXT = "calibration.txt";

/** Rows of so many tokens, if the text has them; it needs two. */
const ROWS = 32, LENGTH = 128;

/** Where a model is to run, and who hears what was measured. */
export interface RangesOptions {
  backend: Backend;
  /** Called with one line. */
  log: (line: string) => void;
}

/** Of the weights in a folder. */
export async function rangesOfFolder(folder: string, options: RangesOptions): Promise<ActivationRanges> {
  const config = await readConfig(folder);
  using weights = await checkpointWeights(folder, config);
  if (weights.activationRanges.size) return weights.activationRanges;
  const text = await Deno.readTextFile(join(folder, TEXT)).catch(() => null);
  return await known(await weightsDigest(folder, text), options, async () => {
    const rows = text === null ? [] : await rowsOf(text, folder, config);
    const source = rows.length ? TEXT : "text of the model's own making";
    const load = (options: Parameters<typeof loadGPT2>[1]) => loadGPT2(folder, options);
    return { source, measured: await measureActivationRanges(load, options.backend, rows.length ? rows : undefined) };
  });
}

/** Of weights that a seed makes: on random tokens. */
export async function rangesOfSeed(
  config: GPT2Config,
  seed: number,
  options: RangesOptions,
): Promise<ActivationRanges> {
  return await known(seedDigest(seed, config), options, async () => {
    const random = seededRandom(seed), token = () => Math.floor(random() * config.vocab_size);
    const length = Math.min(LENGTH, config.n_positions);
    const rows = Array.from({ length: 4 }, () => Array.from({ length }, token));
    const load = (options: Parameters<typeof loadGPT2>[1]) => randomGPT2(config, { ...options, seed });
    return { source: "random tokens", measured: await measureActivationRanges(load, options.backend, rows) };
  });
}

/** Those that are stored, or measured and then stored: once, however many load the same weights at once. */
const known = singleFlight(async (
  digest: string,
  { log }: RangesOptions,
  measure: () => Promise<{ source: string; measured: MeasuredRanges }>,
): Promise<ActivationRanges> => {
  const stored = await storedRanges(digest);
  if (stored) return stored;
  const start = performance.now();
  const { source, measured: { ranges, layers, clippedShare, perplexityRatio, tokens } } = await measure();
  const seconds = (performance.now() - start) / 1000, percent = (share: number) => `${(100 * share).toPrecision(2)}%`;
  log(
    `Measured what goes into the int8 layers, once for these weights: ${seconds.toFixed(1)} s, on ` +
      `${
        tokens.toLocaleString("en")
      } tokens, ${source}. ${ranges.size} of ${layers} layers have constant ranges, which cut ` +
      `something off in ${percent(clippedShare)} of the vectors and change perplexity by ${
        percent(perplexityRatio - 1)
      }.`,
  );
  await storeRanges(digest, ranges).catch((error) => log(`The ranges could not be kept: ${error.message}`));
  return ranges;
}, (digest) => digest);

/** An even number of rows of the text's tokens; none if it has too few. */
async function rowsOf(text: string, folder: string, { n_positions }: GPT2Config): Promise<number[][]> {
  const tokens = (await AutoTokenizer.fromPretrained(folder)).encode(text), length = Math.min(LENGTH, n_positions);
  const count = 2 * Math.floor(Math.min(ROWS, tokens.length / length) / 2);
  return Array.from({ length: count }, (_, i) => tokens.slice(i * length, (i + 1) * length));
}
