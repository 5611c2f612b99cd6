/** Files that are written whole or not at all. */

import { dirname } from "node:path";

/** Writes a text file, whole or not at all, as {@link writeFile} does. */
export async function writeTextFile(path: string, text: string): Promise<void> {
  await writeFile(path, (file) => writeAll(file, new TextEncoder().encode(text)));
}

/**
 * Lets `write` fill a file of a temporary name, in the same folder, which is made if need be, and moves it in one step to
 * its own name once all of it is on the disk. A file that was there before stays until then.
 */
export async function writeFile(path: string, write: (file: Deno.FsFile) => Promise<void>): Promise<void> {
  await Deno.mkdir(dirname(path), { recursive: true });
  const temporary = await Deno.makeTempFile({ dir: dirname(path), prefix: ".writing-" });
  try {
    {
      using file = await Deno.open(temporary, { write: true });
      await write(file);
      await file.syncData();
    }
    await Deno.chmod(temporary, 0o644).catch(() => {}); // temporary files are private; Windows has no modes
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    throw error;
  }
}

/** Writes all the bytes of an array: one call of `write` may take fewer. */
export async function writeAll(
  file: { write(bytes: Uint8Array): Promise<number> },
  { buffer, byteOffset, byteLength }: ArrayBufferView,
): Promise<void> {
  let rest = new Uint8Array(buffer, byteOffset, byteLength);
  while (rest.length > 0) rest = rest.subarray(await file.write(rest));
}
