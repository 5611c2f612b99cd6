/** The book: what it takes from the notebooks, and in full runs, as Sphinx is a download, the whole of it, built and browsed. */

import assert from "node:assert/strict";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { AutoModelForCausalLM, AutoTokenizer, generateBatch } from "../lib/mod.ts";
import { buildSite } from "../lib/site/build.ts";
import { readChapters, writeAbout } from "../lib/site/chapters.ts";
import { findChromium, Page } from "./_support/browser.ts";
import { chartsOf, NOTEBOOKS, storedNotebooks } from "./_support/stored_notebooks.ts";

Deno.test("every chart of every chapter is a slide, and every chapter says what one can do afterwards", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const chapters = await readChapters(NOTEBOOKS);
    await writeAbout(chapters, folder);
    const read = (...path: string[]) => Deno.readTextFile(join(folder, ...path));
    const page = await read("all_slides.md"), goals = await read("goals.md");
    for (const { name, notebook } of await storedNotebooks()) {
      for (const [i, { data }] of chartsOf(notebook).entries()) {
        const file = `_static/slides/${name}_${i + 1}.svg`, slide = await read(file);
        assert.ok(page.includes(`src="${file}" alt="`), `${file} is not shown`);
        const [, width, height] = slide.match(/^<svg[^>]* width="(\d+)" height="(\d+)"/)!.map(Number);
        assert.ok(
          width === 1920 && height <= 1080 || height === 1080 && width <= 1920,
          `${file}: ${width} × ${height}`,
        );
        const withoutSize = (svg: string) => svg.replace(/ width="[\d.]+" height="[\d.]+"/, "");
        assert.equal(withoutSize(slide), withoutSize([data["image/svg+xml"]].flat().join("")));
      }
      assert.ok(goals.includes(`(notebooks/${name}.ipynb)`), `${name} does not begin with what one can do afterwards`);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

const full = Deno.env.has("OMNIBUS_FULL"), chromium = await findChromium();
const needsFull = full ? "" : " [skipped: `deno task test --full` builds it]";
const needsBoth = needsFull || (chromium ? "" : " [skipped: there is no Chromium]");
const FOLDER = fileURLToPath(new URL("../results/site", import.meta.url));
const built = full ? buildSite(FOLDER) : undefined;

Deno.test({
  name: `no link of the book leads nowhere, and none of its parts is fetched from elsewhere${needsFull}`,
  ignore: !full,
  async fn() {
    await built;
    const pages = new Map<string, { ids: Set<string>; links: string[]; parts: string[] }>();
    for await (const path of filesIn(FOLDER)) {
      if (!path.endsWith(".html") || path.includes("/_static/")) continue;
      const html = await Deno.readTextFile(path);
      assert.doesNotMatch(html, /\|:?[-–]+:?\|/, `${relative(FOLDER, path)} has a table as text`);
      pages.set(path, look(html));
    }
    assert.ok(pages.size > 100);
    const dead: string[] = [];
    for (const [path, { links, parts }] of pages) {
      for (const part of parts) assert.doesNotMatch(part, /^(\w+:)?\/\//, `${relative(FOLDER, path)} fetches ${part}`);
      for (const link of [...links, ...parts]) {
        if (/^(\w+:|\/\/)/.test(link)) continue;
        const [file, anchor] = link.split("#"), [name] = file.split("?");
        const target = name ? join(dirname(path), decodeURIComponent(name)) : path;
        const known = pages.get(target) ?? pages.get(join(target, "index.html"));
        const exists = known ?? await Deno.stat(target).catch(() => null);
        if (!exists || anchor && known && !known.ids.has(decodeURIComponent(anchor))) {
          dead.push(`${relative(FOLDER, path)} -> ${link}`);
        }
      }
    }
    assert.deepEqual(dead, []);
  },
});

Deno.test({
  name:
    `every chapter has its live charts, asks nobody else for anything, and fits a phone, light and dark${needsBoth}`,
  ignore: !full || !chromium,
  async fn() {
    await built;
    await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, serveFile);
    const origin = `http://127.0.0.1:${server.addr.port}`;
    const chapters = (await storedNotebooks()).map(({ name, notebook }) => ({
      path: `notebooks/${name}.html`,
      charts: chartsOf(notebook).length,
    }));
    const names = [
      "index",
      "glossary",
      "lab",
      "browser",
      "how_it_works",
      "measurements",
      "teachers",
      "slides",
      "api/index",
      "api/all_symbols",
    ];
    const others = names.map((name) => ({ path: `${name}.html`, charts: 0 }));
    for (const [shape, width, height] of [["desktop", 1280, 900], ["phone", 390, 844]] as const) {
      await using page = await Page.open(chromium!, { width, height });
      for (const { path, charts } of [...others, ...chapters]) {
        await page.send("Page.navigate", { url: `${origin}/${path}` });
        await page.until("whole page", `document.readyState === "complete" && location.pathname === "/${path}"`);
        for (let i = 0; i < charts; i++) {
          await page.evaluate(`document.querySelectorAll("figure.chart")[${i}].scrollIntoView()`);
          await page.until("live chart", `document.querySelectorAll("figure.chart")[${i}].querySelector(".marks")`);
        }
        const asked = await page.evaluate<string[]>(`performance.getEntriesByType("resource").map(({ name }) => name)`);
        assert.deepEqual(asked.filter((url) => !/^(data|blob):/.test(url) && new URL(url).origin !== origin), [], path);
        const across = await page.evaluate<number>("document.documentElement.scrollWidth");
        assert.ok(across <= width, `${path} is ${across} pixels wide on a ${shape}`);
        for (const mode of ["light", "dark"]) {
          await page.evaluate(`{
            const { dataset, classList } = document.documentElement;
            dataset.theme = "${mode}"; // the book's way
            classList.toggle("dark", ${mode === "dark"}); // the API reference's
            scrollTo(0, 0);
          }`);
          await page.screenshot(`results/site_${path.replaceAll(/\W/g, "_")}_${shape}_${mode}.png`);
        }
      }
    }
  },
});

for (const webgpu of [true, false]) {
  const where = webgpu ? "on a software GPU" : "on WebAssembly, where there is no GPU";
  Deno.test({
    name: `in the page, the engine answers ${where} as the library does, and measures batches${needsBoth}`,
    ignore: !full || !chromium,
    async fn() {
      await built;
      await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, serveFile);
      await using page = await Page.open(chromium!, { width: 1000, height: 2200, webgpu });
      await page.send("Page.navigate", { url: `http://127.0.0.1:${server.addr.port}/browser.html` });
      await page.until(
        "size of the model",
        `document.querySelector("#load")?.textContent === "Load the model (27 MB)"`,
      );
      await page.click("#load");
      const status = `document.querySelector("#status").textContent`;
      await page.until("end of loading", `!/^Loading…/.test(${status}) && ${status}`);
      assert.equal(await page.evaluate(status), "The model is ready. Nothing leaves your machine.");
      const machine = await page.evaluate<string>(`document.querySelector("#machine").textContent`);
      assert.match(machine, webgpu ? /through WebGPU/ : /^WebGPU reaches no GPU/);
      await page.click("#generate");
      await page.until("end", `!/^Generating…/.test(${status})`, 120);
      assert.match(await page.evaluate(status), /^Done in/);

      using model = await AutoModelForCausalLM.fromPretrained("models/small");
      const tokenizer = await AutoTokenizer.fromPretrained("models/small");
      const [{ text }] = await generateBatch(model, tokenizer("Call me"), { maxTokens: 40, tokenizer });
      assert.equal(await page.evaluate(`document.querySelector("#answer").textContent`), `Call me${text}`);

      await page.evaluate(`document.querySelector("#largest").value = "8"`);
      await page.click("#sweep");
      await page.until("sweep", `!/^Measuring/.test(${status})`, 900);
      assert.match(await page.evaluate(status), /^Batch 8 makes/);
      assert.equal(await page.evaluate(`document.querySelectorAll("#throughput .marks, #latency .marks").length`), 2);
      await page.screenshot(`results/site_browser_${webgpu ? "webgpu" : "wasm"}.png`);
    },
  });
}

async function* filesIn(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) yield* filesIn(join(folder, name));
    else yield join(folder, name);
  }
}

/** The places of a page that can be linked to, what it links to, and what it is made of. */
function look(html: string): { ids: Set<string>; links: string[]; parts: string[] } {
  const values = (pattern: RegExp) =>
    [...html.matchAll(pattern)].map(([, value]) => value.replaceAll("&amp;", "&").replaceAll("&#x2F;", "/"));
  return {
    ids: new Set(values(/\s(?:id|name)="([^"]*)"/g)),
    links: values(/<a\s[^>]*?href="([^"]*)"/g),
    parts: [...values(/<(?:script|img|source)\s[^>]*?src="([^"]*)"/g), ...values(/<link\s[^>]*?href="([^"]*)"/g)],
  };
}

async function serveFile(request: Request): Promise<Response> {
  const path = decodeURIComponent(new URL(request.url).pathname), types = { html: "text/html", js: "text/javascript" };
  const file = await Deno.readFile(join(FOLDER, path)).catch(() => null);
  if (!file) return new Response("not there", { status: 404 });
  const kind = { ...types, css: "text/css", svg: "image/svg+xml" }[path.split(".").at(-1)!] ??
    "application/octet-stream";
  return new Response(file, { headers: { "content-type": kind } });
}
