/** The book: the stored notebooks as pages of a static site, with the library's reference beside them. */

import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { runToEnd } from "../util/child.ts";
import { lockFile } from "../util/lock.ts";
import { bundleScripts } from "./bundle.ts";
import { readChapters, writeAbout } from "./chapters.ts";
import { copyTree } from "./copy.ts";
import { pythonEnvironment } from "../util/python_environment.ts";

const PROJECT = fileURLToPath(new URL("../../", import.meta.url)), HERE = join(PROJECT, "lib", "site");

/** What is used for building, and kept for the next time. */
const WORKSHOP = join(PROJECT, ".site");

/**
 * Builds the site into `folder`, which is replaced when the new one is whole. Returns the Python that built it.
 *
 * Throws an Error if a tool cannot be had, or a page has a mistake: a link to nowhere, a word that is not in the glossary.
 */
export async function buildSite(folder: string, log: (line: string) => void = console.error): Promise<string> {
  await Deno.mkdir(WORKSHOP, { recursive: true });
  using _lock = await lockFile(join(WORKSHOP, "lock"));
  const python = await pythonEnvironment(join(WORKSHOP, "venv"), {
    requirements: join(HERE, "requirements.txt"),
    name: "Sphinx",
    size: "60 MB",
    log,
  });
  const source = join(WORKSHOP, "source"), unfinished = join(WORKSHOP, "html");
  for (const old of [source, unfinished]) await Deno.remove(old, { recursive: true }).catch(ignoreMissing);
  await gatherSources(source);
  await tool(python, ["-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", source, unfinished]);
  await Deno.remove(folder, { recursive: true }).catch(ignoreMissing);
  await Deno.mkdir(dirname(folder), { recursive: true });
  await Deno.rename(unfinished, folder);
  return python;
}

/** All that Sphinx reads, in one folder: it takes nothing from outside. */
async function gatherSources(folder: string): Promise<void> {
  const pages = join(HERE, "pages"), api = join(folder, "extra", "api"), styles = join(folder, "_static");
  await copyTree(pages, folder, /\.md$/);
  await copyTree(join(PROJECT, "notebooks"), join(folder, "notebooks"), /\.(ipynb|svg|json)$/);
  await copyTree(join(PROJECT, "lib"), join(folder, "lib"), /\.(ts|py|md|yaml)$|^Dockerfile$/); // what pages link to
  for (const name of ["conf.py", "stored_notebooks.py"]) await Deno.copyFile(join(HERE, name), join(folder, name));
  for (const made of [styles, dirname(api)]) await Deno.mkdir(made, { recursive: true });
  await writeAbout(await readChapters(join(folder, "notebooks")), folder);
  await Deno.copyFile(join(HERE, "book.css"), join(styles, "book.css"));
  await bundleScripts(styles);
  const modules = ["mod.ts", "chart.ts", "tensorflow/mod.ts"].map((name) => join("lib", name));
  await tool(Deno.execPath(), ["doc", "--quiet", "--html", "--name=Omnibus", `--output=${api}`, ...modules]);
  await Deno.writeTextFile(join(api, "page.css"), await Deno.readTextFile(join(HERE, "api.css")), { append: true });
}

/** Runs a tool to its end. Its error is what it said. */
async function tool(program: string, args: string[]): Promise<void> {
  const { success, stderr } = await runToEnd(program, { args, cwd: PROJECT, stdout: "null", stderr: "piped" });
  if (!success) throw new Error(`Cannot build the site: ${new TextDecoder().decode(stderr).trim()}`);
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}
