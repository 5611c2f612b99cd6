/** Which of a repository's files make a model. */

import type { HubFile } from "./checksum.ts";
import { HubError } from "./error.ts";
import type { Listing } from "./listing.ts";

const WHOLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** The most bytes that each small file may have: they are read at once. */
const LIMITS = { "config.json": 1e6, "tokenizer.json": 1e8, "tokenizer_config.json": 1e6, [INDEX]: 4e6 };

/** What says which model it is, to be had first: config, tokenizer, and the index if the weights are in shards. */
export function smallFiles({ files }: Listing): HubFile[] {
  const names = ["config.json", "tokenizer.json", "tokenizer_config.json", ...files.has(WHOLE) ? [] : [INDEX]];
  return names.flatMap((name) => {
    const file = files.get(name);
    if (!file && name === "tokenizer_config.json") return [];
    if (!file) throw new HubError(missing(name, files));
    const limit = LIMITS[name as keyof typeof LIMITS];
    if (file.size > limit) {
      throw new HubError(`its ${name} has ${file.size} bytes, more than the ${limit} that are read`);
    }
    return [file];
  });
}

/** The weights: one file, or those that the index in `folder` lists, read with `listedWeights`. */
export async function weightFiles(
  { files }: Listing,
  folder: string,
  listedWeights: (path: string) => Promise<string[]>,
): Promise<HubFile[]> {
  const whole = files.get(WHOLE);
  if (whole) return [whole];
  return (await listedWeights(`${folder}/${INDEX}`)).map((name) => {
    const file = files.get(name);
    if (!file) throw new HubError(`its ${INDEX} lists ${name}, which is not there`);
    return file;
  });
}

function missing(name: string, files: Listing["files"]): string {
  if (name !== INDEX) return `it has no ${name}. Choose a model that has one`;
  const others = [...files.keys()].filter((file) => /\.(bin|h5|msgpack|onnx|gguf|pt|ckpt)$/.test(file));
  const has = others.length ? `, only ${others.slice(0, 3).join(", ")}` : "";
  return `it has no ${WHOLE}${has}. Choose a model with safetensors, or convert it`;
}
