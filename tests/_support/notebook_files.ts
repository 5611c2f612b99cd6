/** Notebooks that tests make. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";

const project = fileURLToPath(new URL("../..", import.meta.url));

/** A new folder inside the project, so that its import map holds in the notebooks; `..` is two levels up. */
export async function temporaryFolder(): Promise<{ path: string } & AsyncDisposable> {
  await Deno.mkdir(join(project, ".jupyter"), { recursive: true });
  const path = await Deno.makeTempDir({ dir: join(project, ".jupyter") });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** Writes a notebook of these code cells, all with the same metadata, and returns its path. */
export async function writeNotebook(
  { path }: { path: string },
  name: string,
  sources: string[],
  metadata = {},
): Promise<string> {
  const cells = sources.map((source) => ({ cell_type: "code", source, metadata, outputs: [], execution_count: null }));
  const file = join(path, `${name}.ipynb`);
  await Deno.writeTextFile(file, JSON.stringify({ cells, metadata: {}, nbformat: 4, nbformat_minor: 4 }));
  return file;
}
