/** Where the peers are installed: a Python environment and llama.cpp's binaries, all in `.bench/`, apart from the project. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runToEnd } from "../../util/child.ts";
import { writeTextFile } from "../../util/files.ts";
import { findPip } from "../../install/pip.ts";

/** The folder for all that the bench downloads and converts. */
export const BENCH_FOLDER: string = fileURLToPath(new URL("../../../.bench", import.meta.url));

/** The release of node-llama-cpp whose binaries are used; llama_library.py describes the llama.cpp in them, 0.5.0. */
export const NODE_LLAMA_CPP = "3.22.1";

/** Something to install: packages for Python, or llama.cpp's binaries. */
export interface Package {
  /** What to ask pip for. */
  python?: readonly string[];
  /** {@link NODE_LLAMA_CPP}. */
  llamaCpp?: true;
  /** To download, on Linux x86-64, with all that comes with it. */
  bytes: number;
}

const windows = Deno.build.os === "windows";

/** The packages that are still to be installed, each once. */
export async function missingPackages(packages: readonly Package[], folder = BENCH_FOLDER): Promise<Package[]> {
  const installed = await installedPython(folder), binaries = llamaCppBinaries(folder);
  const hasBinaries = binaries !== null && await exists(binaries);
  return [...new Set(packages)].filter(({ python = [], llamaCpp }) =>
    python.some((requirement) => !installed.includes(requirement)) || (llamaCpp && !hasBinaries)
  );
}

/** Installs Python packages, unless that was done, and gives the interpreter that has them. */
export async function installPython(requirements: readonly string[], folder = BENCH_FOLDER): Promise<string> {
  const venv = join(folder, "venv");
  const python = join(venv, windows ? "Scripts/python.exe" : "bin/python");
  const installed = await installedPython(folder);
  const wanted = requirements.filter((requirement) => !installed.includes(requirement));
  if (!wanted.length) return python;
  if (!installed.length) await makeEnvironment(venv);
  const program = await findPip("What Omnibus is compared with");
  const pip = [...program, "--python", python, "install", "--quiet", "--no-input"];
  refuseCuda(JSON.parse(await call([...pip, "--dry-run", "--report", "-", ...wanted])));
  await call([...pip, ...wanted]);
  await writeTextFile(join(venv, INSTALLED), JSON.stringify([...installed, ...wanted]));
  return python;
}

/** Installs llama.cpp's binaries, unless that was done, and gives their folder. */
export async function installLlamaCpp(folder = BENCH_FOLDER): Promise<string> {
  const binaries = llamaCppBinaries(folder);
  if (!binaries) throw new Error(`node-llama-cpp has no binaries for ${Deno.build.os} on ${Deno.build.arch}.`);
  if (await exists(binaries)) return binaries;
  const project = join(folder, LLAMA_CPP);
  const dependencies = { [`@node-llama-cpp/${BUILD}`]: NODE_LLAMA_CPP };
  await writeTextFile(join(project, "package.json"), JSON.stringify({ dependencies }));
  await call([Deno.execPath(), "install", "--quiet"], project);
  return binaries;
}

const INSTALLED = "installed.json", LLAMA_CPP = "llama.cpp";

/** Which of node-llama-cpp's builds for CPUs this machine needs. */
const BUILD = ({
  "linux x86_64": "linux-x64",
  "linux aarch64": "linux-arm64",
  "darwin x86_64": "mac-x64",
  "darwin aarch64": "mac-arm64-metal",
  "windows x86_64": "win-x64",
  "windows aarch64": "win-arm64",
} as Record<string, string | undefined>)[`${Deno.build.os} ${Deno.build.arch}`];

function llamaCppBinaries(folder: string): string | null {
  return BUILD ? join(folder, LLAMA_CPP, "node_modules", "@node-llama-cpp", BUILD, "bins", BUILD) : null;
}

/** What {@link installPython} has installed. */
async function installedPython(folder: string): Promise<string[]> {
  return await Deno.readTextFile(join(folder, "venv", INSTALLED)).then(JSON.parse, () => []);
}

async function makeEnvironment(folder: string): Promise<void> {
  for (const name of ["python3", "python"]) {
    const args = [name, "-m", "venv", "--clear", "--without-pip", folder];
    if (await call(args).then(() => true, () => false)) return;
  }
  throw new Error(
    "Neither `python3` nor `python` makes a virtual environment. Install Python 3.10 or newer with venv.",
  );
}

/** What `pip install --dry-run --report` says, as far as it matters here. */
export interface PipReport {
  /** What would be installed. */
  install: { metadata: { name: string } }[];
}

/**
 * Throws an error when pip would install PyTorch for NVIDIA GPUs: on Linux it does so unless it knows where the one
 * for CPUs is. Those are gigabytes that a comparison on CPUs has no use for.
 */
export function refuseCuda({ install }: PipReport): void {
  const cuda = install.map(({ metadata }) => metadata.name).filter((name) => /^(nvidia|cuda|triton)/i.test(name));
  if (!cuda.length) return;
  throw new Error(
    `pip would install PyTorch for NVIDIA GPUs (${cuda.length} packages such as ${cuda[0]}). Point pip at PyTorch's ` +
      "CPU wheels, with PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS, and run this again.",
  );
}

/** Runs a command to its end and gives what it printed. Its error is the last line that says what went wrong. */
async function call([program, ...args]: readonly string[], cwd?: string): Promise<string> {
  const options: Deno.CommandOptions = { args, cwd, env: { NO_COLOR: "1" }, stdout: "piped", stderr: "piped" };
  const { success, stdout, stderr } = await runToEnd(program, options);
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes).trim());
  if (success) return out;
  const lines = err.split("\n");
  const reason = lines.findLast((line) => /^error/i.test(line)) ?? lines.at(-1);
  throw new Error(`\`${[program, ...args].join(" ")}\` failed with "${reason}".`);
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}
