/** Downloads pinned wheels with the user's own pip, so that its index, mirror, proxy and certificate settings hold. */

import { join } from "node:path";
import { runToEnd } from "../util/child.ts";
import { SetupError, type Wheel } from "./wheel.ts";

const COMMANDS = [["python3", "-m", "pip"], ["python", "-m", "pip"], ["pip3"], ["pip"]];

/**
 * How to call pip here: the first of the usual ways that works. Throws a {@link SetupError} when none does: it says what
 * was to be downloaded, and ends with `otherwise`, another remedy if there is one.
 */
export async function findPip(what: string, otherwise = ""): Promise<string[]> {
  for (const command of COMMANDS) {
    const { code } = await execute([...command, "--version"]).catch(() => ({ code: 1 }));
    if (code === 0) return command;
  }
  const tried = COMMANDS.map((command) => `\`${command.join(" ")}\``).join(", ");
  throw new SetupError(
    `${what} is downloaded with pip, and none of ${tried} works. Install Python with pip${otherwise}.`,
  );
}

/**
 * Downloads a wheel into `folder` and gives its path, when its size and hash are right; `onBytes` gets the bytes
 * that have arrived so far. Throws a {@link SetupError} otherwise.
 */
export async function downloadWheel(
  pip: string[],
  wheel: Wheel,
  folder: string,
  onBytes: (bytes: number) => void,
): Promise<string> {
  const temporary = join(folder, "tmp");
  await Deno.mkdir(temporary, { recursive: true });
  // pip reports nothing while it downloads, unless to a terminal; its files tell.
  const watch = setInterval(() => onBytes(Math.min(wheel.bytes, largestFile(folder))), 200);
  try {
    await runPip(pip, wheel, folder, temporary);
  } finally {
    clearInterval(watch);
  }
  const file = join(folder, wheel.file);
  await checkFile(file, wheel);
  onBytes(wheel.bytes);
  return file;
}

async function runPip(pip: string[], wheel: Wheel, folder: string, temporary: string): Promise<void> {
  const [name, version, ...tags] = wheel.file.replace(/\.whl$/, "").split("-");
  const command = [
    ...pip,
    "download",
    "--disable-pip-version-check",
    "--no-cache-dir", // what set-up installs is itself a cache: a second copy in pip's would take as much again
    "--progress-bar=off",
    "--no-deps",
    "--only-binary=:all:",
    "--implementation=cp",
    "--python-version=3.12",
    ...tags.at(-1)!.split(".").map((platform) => `--platform=${platform}`),
    `--dest=${folder}`,
    `${name}==${version}`,
  ];
  const { code, stderr } = await execute(command, { TMPDIR: temporary, TEMP: temporary, TMP: temporary });
  if (code === 0) return;
  throw new SetupError(
    `pip could not download ${name} ${version}: ${reasonIn(stderr) ?? `it ended with code ${code}`}. ` +
      "Check the connection and pip's settings (`pip config list`), and try again.",
  );
}

async function execute([program, ...args]: string[], env?: Record<string, string>) {
  const { code, stderr } = await runToEnd(program, { args, env, stdin: "null", stdout: "null", stderr: "piped" });
  return { code, stderr: new TextDecoder().decode(stderr) };
}

/** Why pip failed: its last error, the broken connection that led to it, or the end of a traceback. */
function reasonIn(stderr: string): string | undefined {
  const lines = stderr.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
  const error = lines.findLast((line) => line.startsWith("ERROR: "))?.slice("ERROR: ".length);
  const broken = lines.findLast((line) => line.includes("connection broken by"));
  if (broken && error?.startsWith("No matching distribution")) {
    return broken.replace(/^.*connection broken by '?|'?: \S*$|<[^>]*>: /g, "");
  }
  return (error && error !== "Exception:" ? error : lines.at(-1))?.replace(/\.$/, "");
}

async function checkFile(path: string, { file, bytes, sha256 }: Wheel): Promise<void> {
  const { createHash } = await import("node:crypto"); // not above: it would slow down every start
  using input = await Deno.open(path);
  const hash = createHash("sha256");
  const buffer = new Uint8Array(1 << 20);
  for (let count; (count = await input.read(buffer)) !== null;) hash.update(buffer.subarray(0, count));
  const found = { bytes: (await input.stat()).size, sha256: hash.digest("hex") };
  if (found.bytes === bytes && found.sha256 === sha256) return;
  throw new SetupError(
    `${file} is not the file it should be: it has ${found.bytes} bytes with SHA-256 ${found.sha256}, not ${bytes} ` +
      `with ${sha256}. See with \`pip config list\` where pip downloads from, and try again.`,
  );
}

/** The size of the largest file below a folder. While files come and go under it, a guess. */
function largestFile(folder: string): number {
  let largest = 0;
  try {
    for (const { name, isDirectory } of Deno.readDirSync(folder)) {
      const path = join(folder, name);
      largest = Math.max(largest, isDirectory ? largestFile(path) : Deno.statSync(path).size);
    }
  } catch { /* It went away meanwhile. */ }
  return largest;
}
