/** Files from one folder to another. */

import { join } from "node:path";

/** Copies those files of a folder whose names match. */
export async function copyFiles(from: string, to: string, files: RegExp): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const { name, isFile } of Deno.readDir(from)) {
    if (isFile && files.test(name)) await Deno.copyFile(join(from, name), join(to, name));
  }
}

/** The same with the folders in it, but for hidden ones. */
export async function copyTree(from: string, to: string, files: RegExp): Promise<void> {
  await copyFiles(from, to, files);
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (isDirectory && !name.startsWith(".")) await copyTree(join(from, name), join(to, name), files);
  }
}
