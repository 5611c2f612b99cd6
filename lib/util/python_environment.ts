/** Python packages, pinned by version and hash, in a virtual environment of their own. */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { runToEnd } from "./child.ts";

const windows = Deno.build.os === "windows";

/** What to install, and what to say of it. */
export interface PythonEnvironmentOptions {
  /** A requirements file of pip's. */
  requirements: string;
  /** What it is, for people, e.g. `Jupyter`. */
  name: string;
  /** How large the download is, for people. */
  size: string;
  /** Hears what is about to be downloaded. */
  log: (line: string) => void;
}

/**
 * Makes a virtual environment in `folder` unless it holds just these packages already, and returns its interpreter. What was
 * cut short starts over. The caller sees to it that no two do this at once.
 *
 * Throws an Error that says what to do where Python, venv or pip is missing, or a package cannot be had.
 *
 * @example
 * ```ts ignore
 * const python = await pythonEnvironment(".jupyter/venv", {
 *   requirements: "requirements.txt",
 *   name: "Jupyter",
 *   size: "50 MB",
 *   log: console.error,
 * });
 * ```
 */
export async function pythonEnvironment(
  folder: string,
  { requirements, name, size, log }: PythonEnvironmentOptions,
): Promise<string> {
  const installed = await installedPython(folder, requirements);
  if (installed) return installed;
  const python = interpreter(folder), base = await findPython(name);
  log(`Installing ${name} (a download of about ${size}) into ${folder}. This takes a minute, once.`);
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  await call(name, base, ["-m", "venv", "--without-pip", folder]);
  // Debian keeps ensurepip in a package of its own. A pip outside can do its work.
  const pip = await call(name, python, ["-m", "ensurepip"]).then(() => [python], () => [base, "--python", python]);
  const [command, ...options] = pip;
  const install = ["install", "--quiet", "--no-input", "--only-binary=:all:", "-r", requirements];
  await call(name, command, ["-m", "pip", ...options, ...install]);
  await Deno.writeTextFile(join(folder, COMPLETE), await hashOf(requirements));
  return python;
}

/** The interpreter of the virtual environment in `folder` if it holds just these packages; null if it does not. */
export async function installedPython(folder: string, requirements: string): Promise<string | null> {
  const done = await Deno.readTextFile(join(folder, COMPLETE)).catch(() => null), python = interpreter(folder);
  const isThere = done === await hashOf(requirements) && await Deno.stat(python).then(() => true, () => false);
  return isThere ? python : null;
}

/** Written last. */
const COMPLETE = "complete";

function interpreter(folder: string): string {
  return windows ? join(folder, "Scripts", "python.exe") : join(folder, "bin", "python");
}

async function hashOf(requirements: string): Promise<string> {
  return createHash("sha256").update(await Deno.readTextFile(requirements)).digest("hex");
}

async function findPython(what: string): Promise<string> {
  const check = "import sys, venv; sys.exit(sys.version_info < (3, 11))";
  for (const name of ["python3", "python"]) {
    if (await call(what, name, ["-c", check]).then(() => true, () => false)) return name;
  }
  throw new Error(
    `${what} needs Python 3.11 or newer, and neither \`python3\` nor \`python\` is one. ` +
      "Install it (on Debian and Ubuntu: apt install python3 python3-venv) and run this again.",
  );
}

/** Runs a command to its end. Its error is the last line of its stderr, and what to do. */
async function call(what: string, command: string, args: string[]): Promise<void> {
  const { success, stderr } = await runToEnd(command, { args, stdout: "null", stderr: "piped" });
  if (success) return;
  const lines = new TextDecoder().decode(stderr).trim().split("\n");
  const reason = lines.findLast((line) => line.startsWith("ERROR")) ?? lines.at(-1);
  throw new Error(
    `Cannot install ${what}: \`${[command, ...args].join(" ")}\` failed with "${reason}". If venv or pip is missing, ` +
      "install it (on Debian and Ubuntu: apt install python3-venv) and run this again.",
  );
}
