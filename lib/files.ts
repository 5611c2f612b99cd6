/** Files that are written whole or not at all. */

import { dirname } from "node:path";

/**
 * Writes a text file: to a temporary name in the same folder, which is made if need be, then in one move to its own. A
 * file that was there before stays until then.
 */
export async function writeTextFile(path: string, text: string): Promise<void> {
  await Deno.mkdir(dirname(path), { recursive: true });
  const temporary = await Deno.makeTempFile({ dir: dirname(path), prefix: ".writing-" });
  try {
    await Deno.writeTextFile(temporary, text);
    await Deno.chmod(temporary, 0o644).catch(() => {}); // temporary files are private; Windows has no modes
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    throw error;
  }
}
