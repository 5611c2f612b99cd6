/** A native library that can be installed, and where a user's own or an installed one is. */

import { join, resolve } from "node:path";
import { cacheFolder } from "../util/cache_folder.ts";

/** A native library that can be installed. */
export interface Package {
  /** What people call it. In lower case, the names of its folders and of its lock begin with it. */
  readonly name: string;
  /** The version that is installed. */
  readonly version: string;
  /** The environment variable that may name the folder of a user's own. */
  readonly variable: string;
}

/** The folder one build is installed in. Home folders are shared between machines, so its name says which it is for. */
export function installFolder({ name, version }: Package, suffix = ""): string {
  return join(cacheFolder(), `${name.toLowerCase()}-${version}-${Deno.build.os}-${Deno.build.arch}${suffix}`);
}

/**
 * What `find` finds in the folder that the package's environment variable names, or null if that is not set. Throws a
 * RangeError when it is set and nothing is found; `files` says what was looked for.
 */
export async function fromEnvironment<Library>(
  { name, variable }: Package,
  files: string,
  find: (folder: string) => Promise<Library | null>,
): Promise<Library | null> {
  const folder = Deno.env.get(variable);
  if (!folder) return null;
  const found = await find(resolve(folder));
  if (found) return found;
  throw new RangeError(
    `${variable} is ${folder}, which does not hold ${files}. ` +
      `Correct it, or unset it to have ${name} found or installed.`,
  );
}
