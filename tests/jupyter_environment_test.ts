import assert from "node:assert/strict";
import { join } from "node:path";
import { removeJupyter } from "../lib/jupyter/environment.ts";

Deno.test("removing Jupyter takes what was made for it, and leaves what else lies in its folder", async () => {
  const parent = await Deno.makeTempDir(), folder = join(parent, ".jupyter");
  const make = async () => {
    for (const path of ["bin", "config/lab", "share/kernels/deno", "venv/lib"]) {
      await Deno.mkdir(join(folder, path), { recursive: true });
      await Deno.writeTextFile(join(folder, path, "file"), "");
    }
    await Deno.writeTextFile(join(folder, "lock"), "");
  };
  const left = async (path: string) => (await Array.fromAsync(Deno.readDir(path))).map(({ name }) => name);
  assert.deepEqual(await removeJupyter({ folder }), []);
  await make();
  assert.deepEqual(await removeJupyter({ folder }), [folder]);
  assert.deepEqual(await left(parent), []);
  await make();
  await Deno.writeTextFile(join(folder, "notes.md"), "mine");
  assert.deepEqual(
    (await removeJupyter({ folder })).sort(),
    ["bin", "config", "lock", "share", "venv"].map((name) => join(folder, name)),
  );
  assert.deepEqual(await left(folder), ["notes.md"]);
  assert.deepEqual(await removeJupyter({ folder }), []);
  await Deno.remove(parent, { recursive: true });
});
