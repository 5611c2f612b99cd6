/** All notebooks at reduced sizes, each in a kernel of its own, as `deno task notebooks --quick` runs them; and their exercises. */

import assert from "node:assert/strict";
import { jupyterEnvironment } from "../lib/jupyter/environment.ts";
import { executeNotebook } from "../lib/jupyter/execute.ts";
import { temporaryFolder, writeNotebook } from "./_support/notebook_files.ts";
import { storedNotebooks } from "./_support/stored_notebooks.ts";

for (const { name, notebook: { cells } } of await storedNotebooks()) {
  Deno.test(`${name} runs at reduced sizes, and then the answers to its exercises do, in order`, async () => {
    await using folder = await temporaryFolder();
    const code = cells.filter(({ cell_type }) => cell_type === "code").map(({ source }) => source.join(""));
    const prose = cells.filter(({ cell_type }) => cell_type === "markdown").map(({ source }) => source.join(""));
    const answers = [...prose.join("\n").matchAll(/<summary>Answer<\/summary>\n\n```ts\n([^]*?)```/g)].map((m) => m[1]);
    assert.ok(answers.length > 0, `${name} has no exercises`);
    // The folder is one level deeper than notebooks/.
    const sources = [...code, ...answers].map((source) => source.replaceAll(/(["`])\.\.\//g, "$1../../"));
    const path = await writeNotebook(folder, name, sources);
    const { failure } = await executeNotebook(path, await jupyterEnvironment(), { quick: true });
    assert.equal(failure, undefined, `${failure?.message}\n${failure?.source}\n${failure?.traceback}`);
  });
}
