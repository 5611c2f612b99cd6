/** Installs libtensorflow, of the build that is asked for, and removes every one that was installed. */

import { type InstallOptions, installPackage, removePackage } from "../../install/install.ts";
import { SetupError } from "../../install/wheel.ts";
import {
  findLibtensorflow,
  installedLibtensorflow,
  installFolder,
  LIBTENSORFLOW,
  type Libtensorflow,
} from "./locate.ts";
import { wheelsFor } from "./wheels.ts";

export { SetupError };

/** How to install. */
export interface InstallLibtensorflowOptions extends InstallOptions {
  /** The build for NVIDIA GPUs. */
  cuda?: boolean;
}

/** The libtensorflow to use, installed first if there is none. What the backend calls. */
export async function ensureLibtensorflow(options: InstallLibtensorflowOptions = {}): Promise<Libtensorflow> {
  return await findLibtensorflow() ?? await installLibtensorflow(options);
}

/** Installs libtensorflow, if it is not yet. Throws a {@link SetupError} when that cannot be done on this machine. */
export async function installLibtensorflow(options: InstallLibtensorflowOptions = {}): Promise<Libtensorflow> {
  const { cuda = false } = options;
  const build = {
    folder: installFolder(cuda),
    wheels: () => wheelsFor(cuda),
    installed: () => installedLibtensorflow(cuda),
  };
  return await installPackage(LIBTENSORFLOW, build, options);
}

/** Removes every libtensorflow that was installed, as {@link removePackage} does. */
export async function removeLibtensorflow(log?: (line: string) => void): Promise<string[]> {
  return await removePackage(LIBTENSORFLOW, log);
}
