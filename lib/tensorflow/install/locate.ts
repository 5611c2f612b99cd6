/** Where libtensorflow is: the user's own, the one that set-up installed, or one that came with another package. */

import { dirname, join } from "node:path";
import { fromEnvironment, installFolder as folderOf, type Package } from "../../install/package.ts";

/** The version that set-up installs and everything here is tested with. */
export const VERSION = "2.21.0";

/** What set-up installs. */
export const LIBTENSORFLOW: Package = { name: "libtensorflow", version: VERSION, variable: "LIBTENSORFLOW_DIR" };

/** The libraries' paths. The main one needs symbols of the framework: open that one first. */
export interface Libtensorflow {
  /** The library with the C API. */
  main: string;
  /** Null on Windows, where one library holds everything. */
  framework: string | null;
  /** Where it came from, as it follows "libtensorflow from". */
  source: string;
}

/** [main, framework], as the Python packages and then the C archives name them. */
const NAMES: [main: string, framework: string | null][] = Deno.build.os === "windows"
  ? [["tensorflow.dll", null]]
  : Deno.build.os === "darwin"
  ? withFramework(".2.dylib")
  : withFramework(".so.2");

/**
 * The libtensorflow to use, or null when there is none: LIBTENSORFLOW_DIR's, an installed one (CUDA before CPU),
 * Python's, tfjs-node-gpu's. Throws a RangeError when LIBTENSORFLOW_DIR is set but holds none.
 */
export async function findLibtensorflow(): Promise<Libtensorflow | null> {
  return await fromVariable() ?? await installedLibtensorflow(true) ?? await installedLibtensorflow(false) ??
    await fromPython() ?? await fromTfjsNode();
}

/** What set-up installed, or null. It is complete if it is there: set-up works elsewhere and renames at the end. */
export function installedLibtensorflow(cuda: boolean): Promise<Libtensorflow | null> {
  return inFolder(join(installFolder(cuda), "tensorflow"), cuda ? "set-up, for CUDA" : "set-up");
}

/** The folder one build is installed in. */
export function installFolder(cuda: boolean): string {
  return folderOf(LIBTENSORFLOW, cuda ? "-cuda" : "");
}

async function fromVariable(): Promise<Libtensorflow | null> {
  const files = NAMES.map((names) => names.filter(Boolean).join(" with ")).join(", nor ");
  return await fromEnvironment(LIBTENSORFLOW, files, (folder) => inFolder(folder, LIBTENSORFLOW.variable));
}

/** Prints an installed tensorflow's version and folder without importing it; the current folder does not count. */
const PYTHON_SEARCH = `
import sys
sys.path = [folder for folder in sys.path if folder]
import importlib.metadata, importlib.util
spec = importlib.util.find_spec("tensorflow")
for name in ("tensorflow", "tensorflow-cpu", "tensorflow-macos") if spec and spec.origin else ():
    try:
        print(importlib.metadata.version(name), spec.origin, sep="\\n")
        break
    except importlib.metadata.PackageNotFoundError:
        pass
`;

/** The tensorflow of the active virtual environment, else of `python3`: its libraries have the same C API from 2.16 on. */
async function fromPython(): Promise<Libtensorflow | null> {
  const environment = Deno.env.get("VIRTUAL_ENV");
  const [folder, name] = Deno.build.os === "windows" ? ["Scripts", "python"] : ["bin", "python3"];
  for (const python of environment ? [join(environment, folder, name), name] : [name]) {
    const [version, origin] = (await outputOf(python, ["-c", PYTHON_SEARCH])).trim().split(/\r?\n/);
    const [major, minor] = version.split(".").map(Number);
    if (!origin || major < 2 || (major === 2 && minor < 16)) continue;
    const found = await inFolder(dirname(origin), `Python's tensorflow ${version}`);
    if (found) return found;
  }
  return null;
}

async function fromTfjsNode(): Promise<Libtensorflow | null> {
  if (!import.meta.dirname) return null;
  const folder = join(import.meta.dirname, "../../../node_modules/@tensorflow/tfjs-node-gpu/deps/lib");
  return await inFolder(folder, "tfjs-node-gpu");
}

function withFramework(suffix: string): [string, string][] {
  return ["libtensorflow_cc", "libtensorflow"].map((main) => [main + suffix, `libtensorflow_framework${suffix}`]);
}

async function inFolder(folder: string, source: string): Promise<Libtensorflow | null> {
  for (const [main, framework] of NAMES) {
    const found = { main: join(folder, main), framework: framework && join(folder, framework), source };
    if (await isFile(found.main) && (!found.framework || await isFile(found.framework))) return found;
  }
  return null;
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch {
    return false;
  }
}

/** What a program prints, or nothing when it fails or is not there. */
async function outputOf(program: string, args: string[]): Promise<string> {
  try {
    const { success, stdout } = await new Deno.Command(program, { args, stdin: "null", stderr: "null" }).output();
    return success ? new TextDecoder().decode(stdout) : "";
  } catch {
    return "";
  }
}
