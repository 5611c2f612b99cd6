/** Files that a command leaves behind. Whether they can be written is found out before the work, not after it. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkWritable, writeTextFile } from "../util/files.ts";
import { UsageError, userPath } from "./command.ts";

const RESULTS = fileURLToPath(new URL("../../results/", import.meta.url));

/** Writes an output's text; gives its path, or says that it was not kept. */
export type Output = (text: string) => Promise<string>;

/**
 * The file that the user named with `--flag`, or `fallback` in `results/`. Throws a {@link UsageError} if the user's
 * cannot be written. Where ours cannot, as in a read-only clone, that is said, and the results are shown all the same.
 */
export async function output(flag: string, named: string | undefined, fallback: string): Promise<Output> {
  const path = named === undefined ? join(RESULTS, fallback) : userPath(named);
  const problem = await checkWritable(path).then(() => undefined, (error: Error) => error.message);
  if (problem === undefined) return (text) => writeTextFile(path, text).then(() => path);
  if (named !== undefined) {
    throw new UsageError(`--${flag} cannot be written: ${problem}. Name a file in a folder that takes new files.`);
  }
  console.error(
    `The ${flag === "chart" ? "chart" : "results"} will not be kept: ${problem}. Say where with --${flag} FILE.`,
  );
  return () => Promise.resolve("not kept");
}

/** The same for a picture, which must be named so. */
export async function pictureOutput(flag: string, named: string | undefined, fallback: string): Promise<Output> {
  if (named !== undefined && !named.endsWith(".svg")) {
    throw new UsageError(`--${flag} must end in .svg: it is "${named}".`);
  }
  return await output(flag, named, fallback);
}
