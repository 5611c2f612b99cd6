/** The notebooks as they are stored. */

import assert from "node:assert/strict";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { jupyterEnvironment } from "../../lib/jupyter/environment.ts";

/** Where they lie. */
export const NOTEBOOKS = fileURLToPath(new URL("../../notebooks", import.meta.url));

/** A notebook of format 4, as far as tests look into it. */
export interface Notebook {
  cells: {
    id: string;
    cell_type: string;
    metadata: { tags?: string[] };
    source: string[];
    outputs?: Output[];
    execution_count?: number;
  }[];
  metadata: { kernelspec: { name: string } };
  nbformat: number;
  nbformat_minor: number;
}

/** One output of a cell. */
export interface Output {
  name?: string;
  text?: string[];
  data?: Record<string, unknown>;
}

/** All of them, by name: `04_batching`. */
export async function storedNotebooks(): Promise<{ name: string; path: string; text: string; notebook: Notebook }[]> {
  const paths = (await Array.fromAsync(Deno.readDir(NOTEBOOKS))).map(({ name }) => name)
    .filter((name) => name.endsWith(".ipynb")).sort().map((name) => join(NOTEBOOKS, name));
  return await Promise.all(paths.map(async (path) => {
    const text = await Deno.readTextFile(path);
    return { name: basename(path, ".ipynb"), path, text, notebook: JSON.parse(text) };
  }));
}

/** All of them as nbconvert makes them HTML: a new folder in which each has a page, `04_batching.html`. */
export async function convertedNotebooks(): Promise<{ folder: string } & AsyncDisposable> {
  const { python, env } = await jupyterEnvironment(), folder = await Deno.makeTempDir();
  const paths = (await storedNotebooks()).map(({ path }) => path);
  const args = ["-m", "nbconvert", "--to", "html", "--output-dir", folder, ...paths];
  const { success, stderr } = await new Deno.Command(python, { args, env }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return { folder, [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }) };
}

/** The charts among a notebook's outputs, in order. */
export function chartsOf(
  { cells }: Notebook,
): { cell: string; data: Record<string, unknown>; specification: Record<string, unknown> }[] {
  return cells.flatMap(({ id, outputs = [] }) =>
    outputs.flatMap(({ data = {} }) => {
      const type = Object.keys(data).find((type) => type.startsWith("application/vnd.vega"));
      return type ? [{ cell: id, data, specification: data[type] as Record<string, unknown> }] : [];
    })
  );
}
