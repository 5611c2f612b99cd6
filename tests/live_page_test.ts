/** The server's live page, used as a person would. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { AutoModelForCausalLM, AutoTokenizer, Engine } from "../lib/mod.ts";
import { serve } from "../lib/serve/server.ts";
import { findChromium, Page } from "./_support/browser.ts";

const chromium = await findChromium();
const needs = chromium ? "" : " [skipped: there is no Chromium]";
const text = (id: string) => `document.querySelector("#${id}").textContent`;

Deno.test({
  name: `on the live page one rides, sends a burst, and compares static batches with continuous batching${needs}`,
  ignore: !chromium,
  async fn() {
    using model = await AutoModelForCausalLM.fromPretrained("models/small");
    const tokenizer = await AutoTokenizer.fromPretrained("models/small");
    await using engine = new Engine({ model, maxBatch: 8 });
    await using server = await serve({ engine, model: { name: "small", config: model.config, tokenizer } }, {
      port: 0,
    });
    await using page = await Page.open(chromium!, { width: 1100, height: 1500 });
    await page.send("Page.enable");
    await page.send("Page.addScriptToEvaluateOnNewDocument", { source: COLLECT_ERRORS });
    await page.send("Page.navigate", { url: `${server.url}/` });
    await page.until(
      "connection",
      `${text("status")} === "Connected." && document.querySelectorAll(".seat").length === 8`,
    );

    await page.evaluate(`(() => {
      document.querySelector("#temperature").value = "0";
      document.querySelector("#max-tokens").value = "30";
      document.querySelector("#prompt").value = "What comes up";
    })()`);
    await page.click("#ride button");
    await page.until("arrival", `${text("status")} === "You have arrived."`);
    const { text: alone } = await engine.submit({ prompt: tokenizer.encode("What comes up"), maxTokens: 30, tokenizer })
      .result;
    assert.equal(await page.evaluate(text("answer")), `What comes up${alone}`);

    await page.evaluate(
      `document.querySelector("#burst-size").value = 12, document.querySelector("#burst-size").oninput()`,
    );
    await page.click("#burst");
    await page.until("full bus", `document.querySelectorAll(".seat.decode").length === 8`);
    await page.until("waiting passengers", `/wait/.test(${text("queue")})`);
    await page.until("all arrived", `${text("status")} === "All 12 passengers have arrived."`);
    await page.until(
      "figures",
      `[..."throughput ttft tpot".split(" ")].every((id) => /\\d/.test(document.getElementById(id).textContent))`,
    );

    await page.click("#compare");
    await page.until("comparison", `/^The same 12 passengers/.test(${text("status")})`, 120);
    for (const id of ["static", "continuous"]) {
      assert.match(await page.evaluate(text(id)), /: \d+\.\d s, \d+ tokens per second, \d+% of 8 seats taken$/);
      assert.ok(await page.evaluate<number>(`document.querySelectorAll("#${id} rect.decode").length`) > 50, id);
    }
    assert.deepEqual(await page.evaluate("errors"), []);

    const axe = await Deno.readTextFile(fileURLToPath(import.meta.resolve("axe-core")));
    for (const scheme of ["light", "dark"]) {
      await page.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
      const found = await page.evaluate<{ id: string; impact: string }[]>(
        `(async () => { ${axe}; return (await axe.run()).violations.map(({ id, impact }) => ({ id, impact })); })()`,
      );
      assert.deepEqual(found.filter(({ impact }) => ["serious", "critical"].includes(impact)), [], scheme);
      for (const [shape, width, height] of [["desktop", 1100, 1500], ["phone", 390, 2000]] as const) {
        await page.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
        assert.ok(await page.evaluate<number>("document.documentElement.scrollWidth") <= width, shape);
        await page.screenshot(`results/live_page_${shape}_${scheme}.png`);
      }
    }
  },
});

Deno.test({
  name: `the live page asks for the server's key, and follows the engine once it has it${needs}`,
  ignore: !chromium,
  async fn() {
    using model = await AutoModelForCausalLM.fromPretrained("models/small");
    const tokenizer = await AutoTokenizer.fromPretrained("models/small");
    await using engine = new Engine({ model, maxBatch: 2 });
    const loaded = { engine, model: { name: "small", config: model.config, tokenizer } };
    await using server = await serve(loaded, { port: 0, apiKeys: ["a key"] });
    await using page = await Page.open(chromium!, { width: 900, height: 1800 });
    await page.send("Page.navigate", { url: `${server.url}/` });
    await page.until("question for the key", `${text("status")} === "This server asks for a key."`);
    await page.evaluate(`document.querySelector("#key").value = "a key"`);
    await page.click("#key-form button");
    await page.until("connection", `${text("status")} === "Connected."`);
  },
});

const COLLECT_ERRORS = `globalThis.errors = [];
addEventListener("error", ({ message }) => errors.push(message));
addEventListener("unhandledrejection", ({ reason }) => errors.push(String(reason)));
addEventListener("securitypolicyviolation", ({ blockedURI }) => errors.push("blocked " + blockedURI));
for (const name of ["error", "warn"]) console[name] = (...words) => errors.push(words.join(" "));`;
