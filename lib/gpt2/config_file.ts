/** The file of a model's configuration. */

import { parseJson } from "../util/json.ts";
import { type GPT2Config, parseConfig } from "./config.ts";

/** Reads and checks the `config.json` of a model's folder. Throws a RangeError or a TypeError that names the file. */
export async function readConfig(folder: string): Promise<GPT2Config> {
  const path = `${folder}/config.json`;
  let text: string;
  try {
    const { isFile, size } = await Deno.stat(path);
    if (!isFile || size > MAX_FILE_BYTES) throw new Error(isFile ? `it has ${size} bytes` : "it is not a file");
    text = await Deno.readTextFile(path);
  } catch (cause) {
    throw new RangeError(`Cannot load a model from ${folder}: there is no readable config.json in it.`, { cause });
  }
  let json: unknown;
  try {
    json = parseJson(text);
  } catch (cause) {
    throw new RangeError(`Cannot load a model from ${folder}: its config.json is not JSON.`, { cause });
  }
  return parseConfig(json, path);
}

/** A thousand times what a configuration has. */
const MAX_FILE_BYTES = 1_000_000;
