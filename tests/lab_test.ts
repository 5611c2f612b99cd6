import assert from "node:assert/strict";
import { basename, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { findChromium, installChromium, Page } from "./_support/browser.ts";
import { chartsOf, convertedNotebooks, NOTEBOOKS, storedNotebooks } from "./_support/stored_notebooks.ts";

const full = Boolean(Deno.env.get("OMNIBUS_FULL"));
const chromium = await findChromium() ?? (full ? await installChromium() : null);
const ignore = !chromium;
const needs = ignore ? " [skipped: there is no Chromium; `deno task test --full` installs one]" : "";

const project = fileURLToPath(new URL("..", import.meta.url));
const results = join(project, "results");

Deno.test({
  name: `in JupyterLab, all of 04 runs at reduced sizes, its charts are drawn, and progress is one line${needs}`,
  ignore,
  async fn() {
    const text = await Deno.readTextFile(join(NOTEBOOKS, "04_batching.ipynb"));
    const charts = chartsOf(JSON.parse(text)).length;
    await using notebook = await temporaryNotebook(text);
    await using lab = await Lab.start();
    await using page = await Page.open(chromium!, { width: 1280, height: 24000 }); // all cells are on the screen
    await page.send("Page.navigate", { url: lab.url(notebook.path) });

    await page.until("idle kernel", IDLE);
    await page.click(".lm-MenuBar-itemLabel", "Kernel");
    await page.click('[data-command="kernelmenu:restart-and-clear"] .lm-Menu-itemLabel');
    await page.click(".jp-Dialog-button.jp-mod-warn, .jp-Dialog-button.jp-mod-accept");
    await page.until("cleared outputs", `!document.querySelector(".jp-OutputArea-output")`);
    await page.until("idle kernel", IDLE);
    await page.click(".lm-MenuBar-itemLabel", "Run");
    await page.click('[data-command="runmenu:run-all"] .lm-Menu-itemLabel');
    const prompts = `[...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map((one) => one.textContent)`;
    await page.until("all cells done", `${prompts}.every((text) => /^\\[\\d+\\]:$/.test(text))`, 600);
    await page.until("drawn charts", `${drawn} === ${charts}`);

    const errors = await page.evaluate<string[]>(
      `[...document.querySelectorAll('[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]')].map((one) => one.textContent)`,
    );
    assert.deepEqual(errors, []);
    const bars = await page.evaluate<string[]>(
      `[...document.querySelectorAll(".jp-OutputArea-output")].map((one) => one.textContent).filter((text) => text.includes("█"))`,
    );
    assert.equal(bars.length, 1, bars.join("\n"));
    await page.screenshot(join(results, "lab.png"));
  },
});

Deno.test({
  name: `in JupyterLab, the stop button ends a generation, and the next cell runs${needs}`,
  ignore,
  async fn() {
    const source = [
      `import { AutoModelForCausalLM, AutoTokenizer, generateBatch } from "../lib/mod.ts";
import { progress } from "../lib/chart.ts";
const model = await AutoModelForCausalLM.fromPretrained("../models/small");
const tokenizer = await AutoTokenizer.fromPretrained("../models/small");
const inputs = tokenizer(Array(16).fill("Call me"), { padding: true });
using bar = progress("generations", 1000);
for (let i = 0; i < 1000; i++) {
  await generateBatch(model, inputs, { maxTokens: 20 });
  bar.update(i + 1);
}`,
      "(await generateBatch(model, inputs, { maxTokens: 3 }))[0].tokens.length + 39",
    ];
    const cells = source.map((source, i) => (
      { id: `c${i}`, cell_type: "code", source, metadata: {}, outputs: [], execution_count: null }
    ));
    const metadata = { kernelspec: { name: "deno", display_name: "Deno", language: "typescript" } };
    const text = JSON.stringify({ cells, metadata, nbformat: 4, nbformat_minor: 5 });
    await using notebook = await temporaryNotebook(text);
    await using lab = await Lab.start();
    await using page = await Page.open(chromium!, { width: 1280, height: 900 });
    await page.send("Page.navigate", { url: lab.url(notebook.path) });
    await page.until("idle kernel", IDLE);
    const output = `[...document.querySelectorAll(".jp-OutputArea-output")].map((one) => one.textContent)`;
    const button = (command: string) => `.jp-NotebookPanel-toolbar [data-command="${command}"]`;
    await page.click(".jp-CodeCell .jp-InputArea-editor");
    await page.click(button("notebook:run-cell-and-select-next"));
    await page.until("moving bar", `${output}.some((text) => / [1-9]\\d* of 1000/.test(text))`);
    await page.screenshot(join(results, "lab_progress.png"));
    await page.click(button("notebook:interrupt-kernel"));
    await page.until("error of the stopped cell", `${output}.some((text) => text.includes("Interrupted"))`);
    assert.equal(await page.evaluate(`${output}.filter((text) => text.includes("█") || text.includes("░")).length`), 1);
    await page.click(button("notebook:run-cell-and-select-next"));
    await page.until("result of the next cell", `${output}.some((text) => text.trim() === "42")`);
  },
});

Deno.test({
  name: `without JavaScript, a browser shows every chart of a notebook that nbconvert made HTML${needs}`,
  ignore,
  async fn() {
    await using converted = await convertedNotebooks();
    for (const { name, notebook } of await storedNotebooks()) {
      await using page = await Page.open(chromium!, { width: 1280, height: 900 });
      await page.send("Emulation.setScriptExecutionDisabled", { value: true });
      await page.send("Page.navigate", { url: pathToFileURL(join(converted.folder, `${name}.html`)).href });
      // The page's own scripts do not run; ours does. The parser makes images before it is at the end, and they load after.
      await page.until("end of the page", `document.readyState === "complete" && location.protocol === "file:"`);
      await page.evaluate(
        `Promise.all([...document.querySelectorAll(".jp-RenderedSVG img")].map((one) => one.decode()))`,
      );
      const sizes = await page.evaluate<number[][]>(
        `[...document.querySelectorAll(".jp-RenderedSVG img")].map((one) =>
          [one.naturalWidth, one.getBoundingClientRect().width, one.getBoundingClientRect().height])`,
      );
      assert.equal(sizes.length, chartsOf(notebook).length, name);
      for (const size of sizes) assert.ok(size.every((length) => length > 100), `${name}: a picture of ${size}`);
      await page.screenshot(join(results, "nbconvert.png"));
    }
  },
});

/** A file that JupyterLab may save; as deep in the project as the notebooks, because it imports ../lib. */
async function temporaryNotebook(text: string): Promise<{ path: string } & AsyncDisposable> {
  await Deno.mkdir(results, { recursive: true });
  const file = await Deno.makeTempFile({ dir: results, prefix: "in_lab-", suffix: ".ipynb" });
  await Deno.writeTextFile(file, text);
  const checkpoint = join(results, ".ipynb_checkpoints", basename(file).replace(".ipynb", "-checkpoint.ipynb"));
  return {
    path: `results/${basename(file)}`,
    async [Symbol.asyncDispose]() {
      for (const path of [file, checkpoint]) await Deno.remove(path).catch(() => {});
    },
  };
}

/** There is a kernel, and it waits: so says the status bar. The toolbar's indicator begins with "idle", before any kernel. */
const IDLE = `document.querySelector("#jp-main-statusbar")?.textContent.includes("Deno | Idle")`;

/** How many charts the page has drawn: each is a canvas, or SVG, of a size that can be seen. */
const drawn = `[...document.querySelectorAll(".jp-RenderedVegaCommon5 .vega-embed")].filter((one) =>
  [...one.querySelectorAll("canvas, svg.marks, img")].some((drawing) => drawing.getBoundingClientRect().width > 100)
).length`;

/** `deno task lab`, without a browser of its own. */
class Lab implements AsyncDisposable {
  private constructor(
    private readonly child: Deno.ChildProcess,
    private readonly address: string,
    private readonly folder: string,
  ) {}

  static async start(): Promise<Lab> {
    const folder = await Deno.makeTempDir(); // what is open there is kept, and would be opened again
    const words = [
      `--LabApp.workspaces_dir=${folder}`,
      "--no-browser",
      "--port=0",
      "--IdentityProvider.token=test",
      "--LabApp.news_url=",
      "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ];
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "lib/cli/lab.ts", "--", ...words],
      cwd: project,
      env: { OMNIBUS_QUICK: "1" },
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const reader = child.stderr.getReader();
    for (let output = "";;) {
      const { value, done } = await reader.read();
      if (done) throw new Error(`JupyterLab did not start: ${output}`);
      output += new TextDecoder().decode(value);
      const address = output.match(/http:\/\/(?:localhost|127\.0\.0\.1):\d+/)?.[0];
      if (!address) continue;
      (async () => {
        while (!(await reader.read()).done);
      })(); // or else it stops when the pipe is full
      return new Lab(child, address, folder);
    }
  }

  url(path: string): string {
    return `${this.address}/lab/tree/${path}?token=test`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill();
    await this.child.status;
    await Deno.remove(this.folder, { recursive: true });
  }
}
