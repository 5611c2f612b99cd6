/** The tokenizer in a model's folder. */

import { join } from "node:path";
import { parseJson } from "../util/json.ts";
import { bytePairTokenizer, type Tokenizer } from "./byte_pair.ts";

export type { DecodeOptions, TokenizeOptions, Tokenizer } from "./byte_pair.ts";

/** Finds the tokenizer of a model. */
export class AutoTokenizer {
  /**
   * Reads `tokenizer.json`, and `tokenizer_config.json` if there is one, from a model's folder. Throws a RangeError that
   * names the file which is missing, damaged, or not of GPT-2's kind.
   *
   * @example
   * ```ts
   * import assert from "node:assert/strict";
   * import { AutoTokenizer } from "./tokenizer.ts";
   *
   * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
   * const { inputIds, attentionMask } = tokenizer(["What comes up must", "A"], { padding: true });
   * assert.deepEqual(inputIds, [[2061, 2058, 510, 1276], [50256, 50256, 50256, 32]]);
   * assert.deepEqual(attentionMask, [[1, 1, 1, 1], [0, 0, 0, 1]]);
   * assert.equal(tokenizer.decode(inputIds[0]), "What comes up must");
   * ```
   */
  static async fromPretrained(folder: string): Promise<Tokenizer> {
    const path = join(folder, "tokenizer.json");
    const json = await readJson(path);
    if (json === undefined) {
      throw new RangeError(
        `Cannot find a tokenizer in ${folder}: it holds no tokenizer.json. Download the model, or copy GPT-2's tokenizer.json there.`,
      );
    }
    return bytePairTokenizer(json, await readJson(join(folder, "tokenizer_config.json")) ?? {}, path);
  }
}

async function readJson(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new RangeError(`Cannot read ${path}: ${(error as Error).message}.`, { cause: error });
  }
  try {
    return parseJson(text);
  } catch (cause) {
    throw new RangeError(`Cannot read ${path}: it is not JSON (${(cause as Error).message}). Download it again.`, {
      cause,
    });
  }
}
