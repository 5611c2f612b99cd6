/** A clone in a folder of another name. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** The project's files in a new folder called `name`, with links to what is large. Gone when disposed of. */
export async function copyOfProject(name: string) {
  const outside = await Deno.makeTempDir(), path = join(outside, name);
  await Deno.mkdir(path);
  for (const file of ["deno.json", "deno.lock", "requirements.txt"]) {
    await Deno.copyFile(join(ROOT, file), join(path, file));
  }
  for (const folder of ["node_modules", "models"]) await Deno.symlink(join(ROOT, folder), join(path, folder));
  for (const folder of ["lib", "tests"]) await copyFolder(join(ROOT, folder), join(path, folder));
  return {
    path,
    /** Runs Deno there. */
    async deno(verb: string, ...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
      const args = [verb, "--node-modules-dir=manual", ...words], env = { NO_COLOR: "1" }; // it is not the copy's own
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: path, env }).output();
      const [said, complained] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
      return { code, stdout: said, stderr: complained };
    },
    [Symbol.asyncDispose]: () => Deno.remove(outside, { recursive: true }),
  };
}

async function copyFolder(from: string, to: string): Promise<void> {
  await Deno.mkdir(to);
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    await (isDirectory ? copyFolder : Deno.copyFile)(join(from, name), join(to, name));
  }
}
