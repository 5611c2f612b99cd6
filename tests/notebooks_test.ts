import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { jupyterEnvironment } from "../lib/jupyter/environment.ts";
import { executeNotebook } from "../lib/jupyter/execute.ts";
import { temporaryFolder, writeNotebook } from "./_support/notebook_files.ts";

const project = fileURLToPath(new URL("..", import.meta.url));
const library = JSON.stringify(import.meta.resolve("../lib/chart.ts"));
const chart = `import { show, throughputChart } from ${library};
const points = [{ batchSize: 1, value: 28 }];
await show(throughputChart([{ name: "a", points }], { title: "One point" }));`;

Deno.test("a notebook whose cells all run passes, and its outputs stand in the cells that made them", async () => {
  await using folder = await temporaryFolder();
  // The kernel sends outputs late: a client that trusts its "idle" loses most of these lines.
  const many = 'for (let i = 0; i < 300; i++) console.log(i); "the result"';
  const path = await writeNotebook(folder, "ok", [
    many,
    "1 + 1",
    many,
    "const n: number = 3; n",
    "await Promise.resolve('x')",
  ]);
  const { text, failure } = await executeNotebook(path, await jupyterEnvironment());
  assert.equal(failure, undefined);
  const outputs = JSON.parse(text!).cells.map((cell: { outputs: Output[] }) => cell.outputs);
  const lines = Array.from({ length: 300 }, (_, i) => `${i}\n`);
  for (const cell of [0, 2]) {
    assert.deepEqual(outputs[cell][0].text, lines);
    assert.deepEqual(outputs[cell][1].data, { "text/plain": ['"the result"'] });
    assert.equal(outputs[cell].length, 2);
  }
  assert.deepEqual(
    [1, 3, 4].map((cell) => outputs[cell][0].data),
    ["2", "3", '"x"'].map((n) => ({ "text/plain": [n] })),
  );
});

function displayed(forms: Record<string, string>): string {
  const bundle = JSON.stringify({ "application/vnd.vegalite.v5+json": {}, ...forms });
  return `await Deno.jupyter.display(${bundle}, { raw: true })`;
}

const failing: Record<string, { cells: string[]; cell?: number; name: string; message: RegExp }> = {
  "throws": { cells: ["1", "throw new RangeError('boom')"], cell: 1, name: "RangeError", message: /^boom$/ },
  "awaits what is rejected": { cells: ["await Promise.reject(new Error('no'))"], name: "Error", message: /^no$/ },
  "is no TypeScript": { cells: ["const = 3"], name: "SyntaxError", message: /could not read/ },
  "calls what is not there": { cells: ["(undefined as any).f()"], name: "TypeError", message: /reading 'f'/ },
  "imports what is not there": { cells: ["import { x } from './none.ts'"], name: "TypeError", message: /not found/ },
  "gives a result that cannot be shown": {
    cells: ["({ [Symbol.for('Jupyter.display')]() { throw new Error('hidden'); } })", "1"],
    name: "Error",
    message: /^hidden$/,
  },
  "ends its kernel": { cells: ["Deno.exit(3)"], name: "DeadKernel", message: /ended/ },
  "shows a chart without a picture": {
    cells: [displayed({ "text/plain": "in words" })],
    name: "NoFallback",
    message: /lacks a picture: show it with show\(\)/,
  },
  "shows a chart without words": {
    cells: [displayed({ "image/svg+xml": "<svg aria-label='in words'></svg>", "text/plain": " " })],
    name: "NoFallback",
    message: /lacks a text: /,
  },
  "shows a chart whose picture has no words": {
    cells: [displayed({ "image/svg+xml": "<svg></svg>", "text/plain": "in words" })],
    name: "NoFallback",
    message: /lacks a label of its picture: /,
  },
  "shows a bare chart": {
    cells: [displayed({})],
    name: "NoFallback",
    message: /lacks a picture and a text: /,
  },
};

for (const [name, { cells, cell = 0, ...expected }] of Object.entries(failing)) {
  Deno.test(`a notebook with a cell that ${name} fails, and says where`, async () => {
    await using folder = await temporaryFolder();
    const path = await writeNotebook(folder, "failing", cells);
    const { failure } = await executeNotebook(path, await jupyterEnvironment(), { cellSeconds: 120 });
    assert.ok(failure);
    assert.deepEqual([failure.cell, failure.source, failure.name], [cell, cells[cell], expected.name]);
    assert.match(failure.message, expected.message);
    assert.ok(!(failure.message + failure.traceback).includes("\x1b"));
  });
}

Deno.test("a cell that never ends fails by time, and its kernel with it", async () => {
  await using folder = await temporaryFolder();
  const cells = ["Deno.writeTextFileSync('pid', String(Deno.pid))", "while (true) {}"];
  const path = await writeNotebook(folder, "loop", cells), jupyter = await jupyterEnvironment();
  const execute = async (cellSeconds: number) => (await executeNotebook(path, jupyter, { cellSeconds })).failure;
  let failure = await execute(3);
  if (failure?.cell === 0) failure = await execute(60); // a busy machine: the first cell took as long
  assert.deepEqual([failure?.cell, failure?.name], [1, "Timeout"]);
  const pid = Number(await Deno.readTextFile(join(folder.path, "pid")));
  assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
});

Deno.test("in a cell, charts stand where they were shown and progress takes one output", async () => {
  await using folder = await temporaryFolder();
  const blocking = "const busy = (ms: number) => { const end = Date.now() + ms; while (Date.now() < end); };";
  const path = await writeNotebook(folder, "order", [
    `${chart}\n${blocking}\nimport { progress } from ${library};`,
    "console.log(1); console.log(2); await show(throughputChart([{ name: 'a', points }], { title: 'A' })); console.log(3);",
    "using bar = progress('sizes', 3);\nfor (let i = 1; i <= 3; i++) { busy(250); bar.update(i); }\nconsole.log('done');",
  ]);
  const { text } = await executeNotebook(path, await jupyterEnvironment());
  const [, shown, counted] = JSON.parse(text!).cells.map((cell: { outputs: Output[] }) =>
    cell.outputs.map(({ text, data }) => text ?? data!["text/plain"])
  );
  assert.deepEqual(shown, [["1\n", "2\n"], ["A. Throughput by batch size: a: 1: 28 tok/s."], ["3\n"]]);
  assert.deepEqual(counted, [[`${"█".repeat(24)} sizes  3 of 3`], ["done\n"]]);
});

/** Executes a notebook, and counts what is sent on the socket on which a cell's reply is being waited for. */
const COUNT_SENDS = `
import sys
sys.path.insert(0, "lib/jupyter")
import execute
from jupyter_client.session import Session
path, way = sys.argv[1:]
clients, sends, send, own = [], 0, Session.send, execute.Client.mark
def counted(session, stream, *args, **kwargs):
    global sends
    for client in clients:
        sends += stream is client.kc.shell_channel.socket and not client.task_poll_for_reply.done()
    return send(session, stream, *args, **kwargs)
def mark(client):
    if client not in clients:
        clients.append(client)
    return own(client) if way == "own" else client.kc.execute(execute.MARK, silent=True)
Session.send, execute.Client.mark = counted, mark
assert "notebook" in execute.execute(path, 60, lambda report: None)
print(sends)
`;

Deno.test("nothing is sent on the socket on which a reply is waited for, which can lose the reply's wake-up", async () => {
  await using folder = await temporaryFolder();
  const path = await writeNotebook(folder, "three", ["1", "2", "3"]), { python, env } = await jupyterEnvironment();
  const sends = async (way: string) => {
    const { stdout } = await new Deno.Command(python, { args: ["-c", COUNT_SENDS, path, way], env, cwd: project })
      .output();
    return Number(new TextDecoder().decode(stdout).trim() || NaN);
  };
  assert.equal(await sends("own"), 0);
  assert.ok(await sends("shared") > 0, "a client that marks on the cells' connection does");
});

Deno.test("an error that a cell is tagged to raise is none", async () => {
  await using folder = await temporaryFolder();
  const path = await writeNotebook(folder, "tagged", ["throw new Error('shown')", "2"], { tags: ["raises-exception"] });
  const { text } = await executeNotebook(path, await jupyterEnvironment());
  assert.match(text!, /"evalue": "shown"/);
});

Deno.test("the task stores outputs when told to, in a form that the next run leaves as it is", async () => {
  await using folder = await temporaryFolder();
  const path = await writeNotebook(folder, "stored", ["console.log(1); ({ a: [1, 2] })", chart]);
  const before = await Deno.readTextFile(path);

  const checked = await notebooks(path);
  assert.equal(checked.code, 0, checked.text);
  assert.match(checked.text, /stored\.ipynb {2}ok {2}/);
  assert.equal(await Deno.readTextFile(path), before);

  assert.match((await notebooks("--update", path)).text, /ok, updated/);
  const text = await Deno.readTextFile(path);
  const { cells, metadata, nbformat, nbformat_minor } = JSON.parse(text);
  assert.deepEqual([nbformat, nbformat_minor, metadata.kernelspec.name], [4, 5, "deno"]);
  assert.deepEqual(cells.map((cell: { execution_count: number }) => cell.execution_count), [1, 2]);
  assert.deepEqual(cells.map((cell: { metadata: unknown }) => cell.metadata), [{}, {}]);
  assert.deepEqual(cells[0].outputs[1].data, { "text/plain": ["{ a: [ 1, 2 ] }"] });
  const { data } = cells[1].outputs[0];
  assert.deepEqual(Object.keys(data), ["application/vnd.vegalite.v5+json", "image/svg+xml", "text/plain"]);
  assert.deepEqual(data["text/plain"], ["One point. Throughput by batch size: a: 1: 28 tok/s."]);
  assert.match(text, /^\{\n "cells": \[\n[^]*\}\n$/);

  assert.match((await notebooks("--update", path)).text, /stored\.ipynb {2}ok {2}/);
  assert.equal(await Deno.readTextFile(path), text);
});

Deno.test("the task fails if a notebook does, shows the cell, and leaves the notebook alone", async () => {
  await using folder = await temporaryFolder();
  const path = await writeNotebook(folder, "broken", ["console.log(1)", "const a = 1;\nthrow new Error(`a is ${a}`)"]);
  const before = await Deno.readTextFile(path);
  const { code, text } = await notebooks("--update", path);
  assert.equal(code, 1);
  assert.match(
    text,
    /broken\.ipynb {2}FAILED [^]*cell 2:\n {4}const a = 1;\n {4}throw [^\n]*\n {2}Error: a is 1\n {4}at /,
  );
  assert.match(text, /\n0 passed, 1 failed\n$/);
  assert.equal(await Deno.readTextFile(path), before);
});

Deno.test("a notebook is found by its path from where the user stands, with a byte order mark or without", async () => {
  await using folder = await temporaryFolder();
  const path = await writeNotebook(folder, "mine", ["1"]);
  await Deno.writeTextFile(path, "\uFEFF" + await Deno.readTextFile(path));
  for (const name of ["./mine.ipynb", "mine.ipynb"]) {
    const { code, text } = await notebooksFrom(folder.path, name);
    assert.equal(code, 0, text);
    assert.match(text, /mine\.ipynb {2}ok/);
  }
  const { code, text } = await notebooksFrom(folder.path, "./other.ipynb");
  assert.deepEqual([code, text.startsWith('notebooks: There is no notebook "./other.ipynb".')], [2, true]);
});

Deno.test("--quick asks notebooks for their reduced sizes", async () => {
  await using folder = await temporaryFolder();
  const path = await writeNotebook(folder, "quick", [
    "if (!Deno.env.get('OMNIBUS_QUICK')) throw new Error('full size')",
  ]);
  assert.equal((await notebooks("--quick", path)).code, 0);
  assert.equal((await notebooks(path)).code, 1);
});

Deno.test("the task refuses to store reduced outputs, and names that it does not know", async () => {
  const stored = await notebooks("--quick", "--update");
  assert.deepEqual([stored.code, stored.text.trim()], [
    2,
    "notebooks: --update stores what a full run gives: leave out --quick.",
  ]);
  const unknown = await notebooks("99_none");
  assert.equal(unknown.code, 2);
  assert.match(unknown.text, /^notebooks: There is no notebook "99_none"\. Those in notebooks\/: /);
});

interface Output {
  text?: string[];
  data?: Record<string, string[]>;
}

/** Runs the task; what it printed comes together. */
function notebooks(...args: string[]): Promise<{ code: number; text: string }> {
  return notebooksFrom(project, ...args);
}

/** The same from another folder: Deno runs tasks in the project's, and says where the user stands. */
async function notebooksFrom(folder: string, ...args: string[]): Promise<{ code: number; text: string }> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "lib/cli/notebooks.ts", ...args],
    cwd: project,
    env: { INIT_CWD: folder },
  });
  const { code, stdout, stderr } = await command.output();
  return { code, text: [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("") };
}
