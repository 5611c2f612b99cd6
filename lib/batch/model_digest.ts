/** Which model it is, wherever its folder lies. */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { readChunks } from "./lines.ts";

/** SHA-256, in hexadecimal, of the names and contents of the files that answers depend on. */
export async function modelDigest(folder: string): Promise<string> {
  const names = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
  const digest = createHash("sha256");
  for (const name of names.filter((name) => /\.(json|safetensors)$/.test(name)).sort()) {
    const hash = createHash("sha256");
    using file = await Deno.open(join(folder, name));
    for await (const chunk of readChunks(file)) hash.update(chunk);
    digest.update(`${name}\0${hash.digest("hex")}\n`);
  }
  return digest.digest("hex");
}
