/** `deno task notebooks`: executes the notebooks, and with `--update` stores their outputs. */

import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { checkWritable, writeTextFile } from "../util/files.ts";
import { jupyterEnvironment } from "../jupyter/environment.ts";
import { coverOf } from "../jupyter/cover.ts";
import { executeNotebook, type NotebookFailure } from "../jupyter/execute.ts";
import { run, UsageError, userPath, wholeNumber } from "./command.ts";
import { formatSeconds } from "../util/format.ts";
import { withProgress } from "../util/progress.ts";

const folder = fileURLToPath(new URL("../../notebooks", import.meta.url));

await run({
  name: "notebooks",
  summary: "Executes notebooks/*.ipynb, or those named, each in a fresh kernel, and fails if a cell fails.",
  words: "[NAME…]",
  flags: {
    update: { type: "boolean", help: "store the outputs of the notebooks that pass" },
    quick: { type: "boolean", help: "reduced sizes, for a check in little time" },
    timeout: { type: "string", value: "SECONDS", help: "how long one cell may take (600)" },
  },
}, async ({ update = false, quick = false, timeout }, names) => {
  if (update && quick) throw new UsageError("--update stores what a full run gives: leave out --quick.");
  const cellSeconds = wholeNumber(timeout, "timeout", 600);
  const paths = await find(names);
  if (update) { for (const path of paths) await refuseUnwritable(path); }
  const jupyter = await jupyterEnvironment();
  let failed = 0;
  for (const path of paths) {
    const started = performance.now();
    const { text, failure } = await withProgress(basename(path), ({ update }) => {
      const onCell = Deno.stderr.isTerminal() ? update : undefined; // elsewhere, a line for each notebook is enough
      return executeNotebook(path, jupyter, { cellSeconds, quick, onCell });
    }, { format: (cell) => `cell ${cell}` });
    if (failure) failed++;
    const changed = update && text !== undefined && await store(path, text);
    const verdict = failure ? "FAILED" : changed ? "ok, updated" : "ok";
    console.log(`${relative(".", path)}  ${verdict}  ${formatSeconds((performance.now() - started) / 1000)}`);
    if (failure) console.log(explain(failure));
  }
  console.log(`${paths.length - failed} passed, ${failed} failed`);
  if (failed) Deno.exit(1);
});

/** Notebooks by name, number or path; all of the project's without any. */
async function find(names: string[]): Promise<string[]> {
  const all: string[] = [];
  for await (const { name } of Deno.readDir(folder)) if (name.endsWith(".ipynb")) all.push(`${folder}/${name}`);
  all.sort();
  if (!names.length && !all.length) throw new Error(`There are no notebooks in ${folder}.`);
  if (!names.length) return all;
  return await Promise.all(names.map(async (name) => {
    if (name.endsWith(".ipynb") && await Deno.stat(userPath(name)).catch(() => null)) return userPath(name);
    const found = all.map((path) => basename(path)).findIndex((file) =>
      [name, `${name}.ipynb`].includes(file) || file.startsWith(`${name}_`)
    );
    if (found >= 0) return all[found];
    const known = all.map((path) => basename(path, ".ipynb")).join(", ") || "none";
    throw new UsageError(`There is no notebook "${name}". Those in notebooks/: ${known}.`);
  }));
}

/** Found out before a notebook runs for minutes. */
async function refuseUnwritable(path: string): Promise<void> {
  await checkWritable(path).catch(({ message }) => {
    throw new UsageError(`--update cannot store the outputs of ${path}: ${message}.`);
  });
}

/** Stores a notebook, if its text changes, and beside it the picture that the README shows of it. */
async function store(path: string, text: string): Promise<boolean> {
  if (await Deno.readTextFile(path) === text) return false;
  await writeTextFile(path, text);
  const cover = coverOf(JSON.parse(text));
  if (cover) await writeTextFile(join(dirname(path), "images", `${basename(path, ".ipynb")}.svg`), cover);
  return true;
}

function explain({ cell, source, name, message, traceback }: NotebookFailure): string {
  const lines = source.split("\n");
  const head = [...lines.slice(0, 5), ...(lines.length > 5 ? ["…"] : [])].map((line) => `    ${line}`);
  const rest = traceback.split("\n").filter((line) => line.trim()).map((line) => `    ${line.trim()}`);
  return [`  cell ${cell + 1}:`, ...head, `  ${name}: ${message}`, ...rest].join("\n");
}
