/** A folder with a GPT-2: what a download must hold before it counts as one. */

import { AutoTokenizer } from "../tokenizer/tokenizer.ts";
import { readShardIndex } from "../safetensors/reader.ts";
import { parameterCount } from "./config.ts";
import { readConfig } from "./config_file.ts";
import { checkpointWeights } from "./weights.ts";

/** Throws a RangeError or a TypeError if `config.json` is not that of a GPT-2: to be asked before gigabytes come. */
export async function checkConfig(folder: string): Promise<void> {
  await readConfig(folder);
}

/** The names of the files with weights that the index at `path` lists. Throws a SafetensorsError. */
export async function listedWeights(path: string): Promise<string[]> {
  return [...new Set((await readShardIndex(path)).values())];
}

/** Opens all parts of a model as those do who run it; gives its number of weights. Throws what they would. */
export async function checkModel(folder: string): Promise<number> {
  const config = await readConfig(folder);
  using _weights = await checkpointWeights(folder, config);
  await AutoTokenizer.fromPretrained(folder);
  return parameterCount(config);
}
