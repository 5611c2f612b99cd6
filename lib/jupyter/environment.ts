/**
 * Jupyter inside this project: a Python environment, a Deno kernel and Jupyter's own files, all in `.jupyter/`.
 * Nothing of the user's Jupyter is read or written.
 */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { lockFile } from "../util/lock.ts";
import { pythonEnvironment } from "../util/python_environment.ts";

const project = fileURLToPath(new URL("../../", import.meta.url));
const windows = Deno.build.os === "windows";

/** A shell that becomes the command that follows, which inherits that SIGINT is ignored. */
const IGNORING_SIGINT = ["/bin/sh", "-c", `trap '' INT; exec "$@"`, "sh"];

/** How to call Jupyter: `python -m jupyterlab` and the like, with these environment variables. */
export interface JupyterEnvironment {
  /** The interpreter that has Jupyter's packages. */
  python: string;
  /** Added to this process's own. */
  env: Record<string, string>;
}

/** Options of {@link jupyterEnvironment}. */
export interface JupyterEnvironmentOptions {
  /** Where everything goes. Default: `.jupyter` in the project. */
  folder?: string;
  /** Hears what is about to be downloaded. Default: `console.error`. */
  log?: (line: string) => void;
}

/**
 * Makes what is missing, which takes a minute and a download the first time, and says how to call Jupyter. Processes
 * that ask at the same time wait for each other; an attempt that was cut short starts over.
 *
 * @example
 * ```ts ignore
 * const { python, env } = await jupyterEnvironment();
 * await new Deno.Command(python, { args: ["-m", "jupyterlab"], env }).spawn().status;
 * ```
 */
export async function jupyterEnvironment(
  { folder = join(project, ".jupyter"), log = console.error }: JupyterEnvironmentOptions = {},
): Promise<JupyterEnvironment> {
  const share = join(folder, "share");
  await Deno.mkdir(folder, { recursive: true });
  using _lock = await lockFile(join(folder, "lock"));
  await linkKernel(folder, share);
  const python = await pythonEnvironment(join(folder, "venv"), {
    requirements: join(project, "requirements.txt"),
    name: "Jupyter",
    size: "50 MB",
    log,
  });
  const env = { JUPYTER_PATH: share, JUPYTER_DATA_DIR: share, JUPYTER_CONFIG_DIR: join(folder, "config") };
  return { python, env };
}

/** What {@link jupyterEnvironment}, and Jupyter when it is called as that says, make in the folder. */
const PARTS = ["bin", "config", "share", "venv", "lock"];

/**
 * Removes all that {@link jupyterEnvironment} made, and nothing else that is in its folder. Returns what is gone: the
 * folder, or where it holds other things the parts of it.
 */
export async function removeJupyter(
  { folder = join(project, ".jupyter") }: JupyterEnvironmentOptions = {},
): Promise<string[]> {
  const removed = [];
  for (const path of PARTS.map((part) => join(folder, part))) {
    if (await Deno.remove(path, { recursive: true }).then(() => true, ignoreMissing)) removed.push(path);
  }
  const isEmpty = await Deno.remove(folder).then(() => true, () => false);
  return removed.length && isEmpty ? [folder] : removed;
}

/**
 * Writes the kernel's description. It names a link to this Deno, because a Deno run by npx lies in a cache.
 *
 * Interrupts come as SIGINT, and the kernel is started with SIGINT ignored: until a cell listens for it (as `lib/` does,
 * see lib/util/interrupt.ts) it changes nothing, where by itself it would end the kernel. The other way, an interrupt message,
 * makes Deno tear down whatever JavaScript runs next. That suits a cell that never awaits; one that awaits never ends
 * after it, and no other cell runs until a restart.
 */
async function linkKernel(folder: string, share: string): Promise<void> {
  const deno = join(folder, "bin", windows ? "deno.exe" : "deno");
  const file = join(share, "kernels", "deno", "kernel.json");
  const spec = {
    argv: [...windows ? [] : IGNORING_SIGINT, deno, "jupyter", "--kernel", "--conn", "{connection_file}"],
    display_name: "Deno",
    language: "typescript",
    interrupt_mode: windows ? "message" : "signal",
    metadata: { version: Deno.version.deno },
  };
  const text = JSON.stringify(spec, null, 2) + "\n";
  if (await exists(deno) && await Deno.readTextFile(file).catch(ignoreMissing) === text) return;
  await Deno.mkdir(join(folder, "bin"), { recursive: true });
  await Deno.mkdir(join(share, "kernels", "deno"), { recursive: true });
  if (Deno.execPath() !== deno) {
    await Deno.remove(deno).catch(ignoreMissing);
    await Deno.link(Deno.execPath(), deno).catch(() => Deno.copyFile(Deno.execPath(), deno));
  }
  await Deno.writeTextFile(file, text);
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

function ignoreMissing(error: unknown): undefined {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}
