/** Which model it is, wherever its folder lies. */

import { createHash } from "node:crypto";
import { join } from "node:path";

/** SHA-256, in hexadecimal, of the names and contents of the files that answers depend on. */
export async function modelDigest(folder: string): Promise<string> {
  const names = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
  const digest = createHash("sha256");
  for (const name of names.filter((name) => /\.(json|safetensors)$/.test(name)).sort()) {
    const hash = createHash("sha256");
    using file = await Deno.open(join(folder, name));
    const buffer = new Uint8Array(1 << 20);
    for (let count; (count = await file.read(buffer)) !== null;) hash.update(buffer.subarray(0, count));
    digest.update(`${name}\0${hash.digest("hex")}\n`);
  }
  return digest.digest("hex");
}
