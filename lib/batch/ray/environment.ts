/** A Python that has Ray: one in `.ray/`, installed on demand, or the one that is there, as in a cluster's image. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { lockFile } from "../../util/lock.ts";
import { installedPython, pythonEnvironment } from "../../util/python_environment.ts";

/** The folder for all of it. */
export const RAY_FOLDER: string = fileURLToPath(new URL("../../../.ray", import.meta.url));

const VENV = join(RAY_FOLDER, "venv"), SIZE = "170 MB";
const REQUIREMENTS = fileURLToPath(new URL("requirements.txt", import.meta.url));

/** The interpreter that has Ray. Throws a RangeError that says how to get one. */
export async function rayPython(): Promise<string> {
  const python = await installedPython(VENV, REQUIREMENTS) ?? await pythonWithRay();
  if (python) return python;
  throw new RangeError(
    "Ray is not installed. `deno task setup --ray` installs Ray 2.60 with pandas and PyArrow into .ray/ " +
      `(a download of about ${SIZE}, 620 MB on disk).`,
  );
}

/** Installs Ray into `.ray/`, unless that was done, and gives the interpreter. */
export async function installRay(log: (line: string) => void = console.error): Promise<string> {
  using _ = await lockFile(join(RAY_FOLDER, "lock"));
  return await pythonEnvironment(VENV, { requirements: REQUIREMENTS, name: "Ray", size: SIZE, log });
}

/** Removes what {@link installRay} made. Returns what is gone. */
export async function removeRay(): Promise<string[]> {
  return await Deno.remove(RAY_FOLDER, { recursive: true }).then(() => [RAY_FOLDER], (error) => {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  });
}

async function pythonWithRay(): Promise<string | null> {
  const args = ["-c", "import importlib.util as u, sys; sys.exit(not (u.find_spec('ray') and u.find_spec('pyarrow')))"];
  for (const name of ["python3", "python"]) {
    const found = async () => await new Deno.Command(name, { args, stdout: "null", stderr: "null" }).output();
    if (await found().then(({ success }) => success, () => false)) return name;
  }
  return null;
}
