/**
 * oneDNN, Intel's library of operations for neural networks (libdnnl): finds it, installs it into the user's cache and
 * removes it. Its threads are those of libgomp.so.1, GCC's OpenMP runtime, which is the system's and not installed here.
 */

import { join } from "node:path";
import { type InstallOptions, installPackage, removePackage } from "../install/install.ts";
import { fromEnvironment, installFolder, type Package } from "../install/package.ts";
import { SetupError, type Wheel } from "../install/wheel.ts";

/** The version that is installed. Its wheels are numbered by Intel's releases instead. */
export const VERSION = "3.2.0";

const ONEDNN: Package = { name: "oneDNN", version: VERSION, variable: "ONEDNN_DIR" };
const LIBRARY = "libdnnl.so.3";
const PLATFORM = `${Deno.build.os}-${Deno.build.arch}`;

const BUILDS: Record<string, Wheel[]> = {
  "linux-x86_64": [{
    file: "onednn_cpu_gomp-2023.2.0-py2.py3-none-manylinux1_x86_64.whl",
    bytes: 38_888_991,
    sha256: "2f22a54d6a890ed14bfa185d42a4be65d8b5b1df85dc1f0f3a9abe31620416fb",
    libraries: { [`onednn_cpu_gomp-2023.2.0.data/data/lib/${LIBRARY}`]: 54_569_528 },
    into: "lib",
  }],
};

/** The path of the oneDNN to use: ONEDNN_DIR's, which must hold one, or the installed one, installed first if need be. */
export async function ensureOnednn(options: InstallOptions = {}): Promise<string> {
  return await fromEnvironment(ONEDNN, LIBRARY, inFolder) ?? await installedOnednn() ?? await installOnednn(options);
}

/** The path of the oneDNN that was installed, or null. It is complete if it is there. */
export function installedOnednn(): Promise<string | null> {
  return inFolder(join(installFolder(ONEDNN), "lib"));
}

/** Installs oneDNN, if it is not yet, and gives its path. Throws a {@link SetupError} when that cannot be done. */
export async function installOnednn(options: InstallOptions = {}): Promise<string> {
  const build = { folder: installFolder(ONEDNN), wheels: wheelsFor, installed: installedOnednn };
  return await installPackage(ONEDNN, build, options);
}

/** Removes every oneDNN that was installed, as {@link removePackage} does. */
export async function removeOnednn(log?: (line: string) => void): Promise<string[]> {
  return await removePackage(ONEDNN, log);
}

/** Whether there is a oneDNN to install for a platform. */
export function hasOnednn(platform = PLATFORM): boolean {
  return platform in BUILDS;
}

/** What oneDNN is installed from on a platform. Throws a {@link SetupError} where there is nothing. */
export function wheelsFor(platform = PLATFORM): Wheel[] {
  if (hasOnednn(platform)) return BUILDS[platform];
  throw new SetupError(
    `There is no oneDNN to install for ${platform}. If you have one, set ONEDNN_DIR to the folder that holds its ` +
      `${LIBRARY}; else do without it.`,
  );
}

async function inFolder(folder: string): Promise<string | null> {
  const path = join(folder, LIBRARY);
  return await Deno.stat(path).then(({ isFile }) => isFile ? path : null, () => null);
}
