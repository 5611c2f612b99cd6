/** Files that are written whole or not at all; what is no file is written through, and links are followed. */

import { dirname, resolve } from "node:path";
import { print } from "./print.ts";

/** Writes a text to what `path` leads to, as {@link writeFile} does; names of standard output and error mean these. */
export async function writeTextFile(path: string, text: string): Promise<void> {
  const stream = await standardStream(path);
  if (stream) return print(text, stream);
  await writeFile(path, (file) => writeAll(file, new TextEncoder().encode(text)));
}

/**
 * Lets `write` fill a file of a temporary name, in the same folder, which is made if need be, and moves it in one step to
 * its own name once all of it is on the disk. A file that was there before stays until then, and a link to it stays a
 * link. Devices and pipes are not replaced: `write` gets them as they are.
 */
export async function writeFile(path: string, write: (file: Deno.FsFile) => Promise<void>): Promise<void> {
  const there = await statOf(path);
  if (there && !there.isFile) {
    using through = await Deno.open(path, { write: true });
    return await write(through);
  }
  const target = await endOfLinks(path), temporary = await makeTemporary(target);
  try {
    {
      using file = await Deno.open(temporary, { write: true });
      await write(file);
      await file.syncData();
    }
    if (posix()) await Deno.chmod(temporary, there?.mode ?? 0o666 & ~Deno.umask()); // temporary files are private
    await Deno.rename(temporary, target);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    throw error;
  }
}

/** Throws what {@link writeFile} would for a place where nothing can be written. Leaves no more than the folder behind. */
export async function checkWritable(path: string): Promise<void> {
  const there = await statOf(path);
  if (there?.isDirectory) throw new Deno.errors.IsADirectory(`it is a folder: '${path}'`);
  if (there && !there.isFile) {
    const { access, constants } = await import("node:fs/promises");
    return await access(path, constants.W_OK); // to open a pipe would be to wait for its reader
  }
  await Deno.remove(await makeTemporary(await endOfLinks(path)));
}

/** Writes all the bytes of an array: one call of `write` may take fewer. */
export async function writeAll(
  file: { write(bytes: Uint8Array): Promise<number> },
  { buffer, byteOffset, byteLength }: ArrayBufferView,
): Promise<void> {
  let rest = new Uint8Array(buffer, byteOffset, byteLength);
  while (rest.length > 0) rest = rest.subarray(await file.write(rest));
}

const posix = () => Deno.build.os !== "windows";

/** Standard output or error, if that is what a path leads to: opened again, a file would be written from its start. */
async function standardStream(path: string): Promise<typeof Deno.stdout | undefined> {
  const there = posix() ? await statOf(path) : null;
  if (!there) return undefined;
  const { fstatSync } = await import("node:fs");
  return [Deno.stdout, Deno.stderr].find((_, i) => {
    const { dev, ino } = fstatSync(i + 1);
    return there.dev === dev && there.ino === ino;
  });
}

/** What a path leads to; null if there is nothing. */
async function statOf(path: string): Promise<Deno.FileInfo | null> {
  return await Deno.stat(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  });
}

/** Where a link, and what that links to, ends, whether or not something is there. */
async function endOfLinks(path: string): Promise<string> {
  const to = await Deno.readLink(path).catch(() => null);
  return to === null ? path : await endOfLinks(resolve(dirname(path), to));
}

/** An empty file beside the one at `path`. */
async function makeTemporary(path: string): Promise<string> {
  await Deno.mkdir(dirname(path), { recursive: true });
  return await Deno.makeTempFile({ dir: dirname(path), prefix: ".writing-" });
}
