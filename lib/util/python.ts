/** Python environments of the project's own, with pinned packages: nothing of the user's Python is changed. */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { runToEnd } from "./child.ts";

/** An environment. */
export interface PythonEnvironment {
  /** Its folder. */
  venv: string;
  /** A requirements.txt with hashes. */
  requirements: string;
  /** What it is for, as messages call it, and how large the download is. */
  name: string;
  size: string;
  /** Hears what is about to be downloaded. */
  log: (line: string) => void;
}

/** The interpreter of an environment in which the requirements were installed, all of them; null if there is none. */
export async function installedPython({ venv, requirements }: Omit<PythonEnvironment, "log">): Promise<string | null> {
  const [complete, python] = [join(venv, COMPLETE), interpreter(venv)];
  const isComplete = await Deno.readTextFile(complete).then(
    async (hash) => hash === await hashOf(requirements),
    () => false,
  );
  return isComplete && await Deno.stat(python).then(() => true, () => false) ? python : null;
}

/** Installs the requirements unless that was done, and gives the interpreter. An attempt that was cut short starts over. */
export async function installPython(environment: PythonEnvironment): Promise<string> {
  const { venv, requirements, name, size, log } = environment;
  const installed = await installedPython(environment);
  if (installed) return installed;
  const python = interpreter(venv), base = await findPython(name);
  log(`Installing ${name} (a download of ${size}) into ${venv}. This takes a minute, once.`);
  await Deno.remove(venv, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  await call(name, base, ["-m", "venv", "--without-pip", venv]);
  // Debian keeps ensurepip in a package of its own. A pip outside can do its work.
  const pip = await call(name, python, ["-m", "ensurepip"]).then(() => [python], () => [base, "--python", python]);
  const [command, ...options] = pip;
  const install = ["install", "--quiet", "--no-input", "--only-binary=:all:", "-r", requirements];
  await call(name, command, ["-m", "pip", ...options, ...install]);
  await Deno.writeTextFile(join(venv, COMPLETE), await hashOf(requirements));
  return python;
}

/** Written last. */
const COMPLETE = "complete";

function interpreter(venv: string): string {
  return Deno.build.os === "windows" ? join(venv, "Scripts", "python.exe") : join(venv, "bin", "python");
}

async function hashOf(requirements: string): Promise<string> {
  return createHash("sha256").update(await Deno.readTextFile(requirements)).digest("hex");
}

async function findPython(forWhat: string): Promise<string> {
  const check = "import sys, venv; sys.exit(sys.version_info < (3, 11))";
  for (const name of ["python3", "python"]) {
    if (await call(forWhat, name, ["-c", check]).then(() => true, () => false)) return name;
  }
  throw new Error(
    `${forWhat} needs Python 3.11 or newer, and neither \`python3\` nor \`python\` is one. ` +
      "Install it (on Debian and Ubuntu: apt install python3 python3-venv) and run this again.",
  );
}

/** Runs a command to its end. Its error is the last line of its stderr, and what to do. */
async function call(forWhat: string, command: string, args: string[]): Promise<void> {
  const { success, stderr } = await runToEnd(command, { args, stdout: "null", stderr: "piped" });
  if (success) return;
  const lines = new TextDecoder().decode(stderr).trim().split("\n");
  const reason = lines.findLast((line) => line.startsWith("ERROR")) ?? lines.at(-1);
  throw new Error(
    `Cannot install ${forWhat}: \`${
      [command, ...args].join(" ")
    }\` failed with "${reason}". If venv or pip is missing, ` +
      "install it (on Debian and Ubuntu: apt install python3-venv) and run this again.",
  );
}
