import assert from "node:assert/strict";
import { join } from "node:path";
import { coverOf } from "../lib/jupyter/cover.ts";
import { missingForms } from "../lib/jupyter/execute.ts";
import citedFacts from "./fixtures/cited_facts.json" with { type: "json" };
import { unfoundedClaims, unusedFacts } from "./_support/notebook_claims.ts";
import {
  chartsOf,
  convertedNotebooks,
  type Notebook,
  NOTEBOOKS,
  storedNotebooks,
} from "./_support/stored_notebooks.ts";

/** By notebook: words with a number that no run computes, as they stand there, and where the number comes from. */
const facts: Record<string, { words: string; source: string }[]> = citedFacts;
const notebooks = await storedNotebooks();

Deno.test("the notebooks are stored as readers and tools expect them", () => {
  for (const { name, text, notebook: { cells, metadata, nbformat, nbformat_minor } } of notebooks) {
    assert.deepEqual([metadata.kernelspec.name, nbformat, nbformat_minor], ["deno", 4, 5], name);
    assert.equal(new Set(cells.map(({ id }) => id)).size, cells.length, `${name}: every cell has an id of its own`);
    assert.equal(cells[0].cell_type, "markdown", `${name} begins with prose`);
    const code = cells.filter(({ cell_type }) => cell_type === "code");
    assert.deepEqual(
      code.map((cell) => cell.execution_count),
      code.map((_, i) => i + 1),
      `${name}: run from top to bottom`,
    );
    assert.ok(code[0].outputs!.length > 0, `${name}: the first cell says what it runs on`);
    for (const { id, outputs } of code) {
      const printed = outputs!.filter(({ name }) => name === "stderr").map(({ text }) => text!.join(""));
      assert.deepEqual(printed, [], `${name}: cell ${id} warns`);
    }
    for (const { id, source } of code) assert.ok(source.length <= 25, `${name}: cell ${id} has more than 25 lines`);
    assert.doesNotMatch(text, /"(file:\/\/)?\/(home|root|work|tmp|Users)\//, `${name} names a folder of one machine`);
  }
  assert.ok(notebooks.length > 0);
});

Deno.test("every chart that is stored has a title, axes that say what they measure, a picture, and words", () => {
  for (const { name, notebook } of notebooks) {
    const charts = chartsOf(notebook);
    assert.ok(charts.length > 0, `${name} has charts`);
    for (const { cell, data, specification } of charts) {
      const where = `${name}, cell ${cell}`;
      assert.deepEqual(missingForms(data), [], where);
      assert.ok(nodes(specification).some(({ title }) => hasWords(title)), `${where}: no title`);
      for (const titles of axes(specification)) assert.ok(titles.some(hasWords), `${where}: an axis without a title`);
    }
  }
});

Deno.test("the README's picture of each notebook is the one stored in it", async () => {
  for (const { name, notebook } of notebooks) {
    assert.equal(await Deno.readTextFile(`${NOTEBOOKS}/images/${name}.svg`), coverOf(notebook), name);
  }
});

for (const { name, notebook } of notebooks) {
  Deno.test(`${name}: every number that looks measured is computed there, or a fact with a source`, () => {
    const cited = facts[name] ?? [];
    for (const { words, source } of cited) assert.ok(source.trim(), `"${words}" has no source`);
    const words = cited.map(({ words }) => words);
    assert.deepEqual(
      unfoundedClaims(notebook, words),
      [],
      "let the notebook compute it, or cite it in cited_facts.json",
    );
    assert.deepEqual(unusedFacts(notebook, words), [], "cited, but not in the notebook");
  });
}

Deno.test("numbers typed by hand are found: in prose, in the code's strings, beside a computed one", () => {
  const computed = { data: { "text/markdown": ["Batch 4: 51 ms, **78.4\n", "tokens per second**, 2.94x."] } };
  const claims = (prose: string, code = "", cited: string[] = []) =>
    unfoundedClaims(
      {
        cells: [
          { id: "prose", cell_type: "markdown", source: [prose] },
          { id: "code", cell_type: "code", source: [code], outputs: [computed] },
        ],
      } as Notebook,
      cited,
    ).map(({ cell, text }) => `${cell}: ${text}`);

  assert.deepEqual(
    claims("It takes 51 ms and 2.9 times as long: 78 tokens/s, **78.4** tokens/s. There are 3 prompts."),
    [],
  );
  assert.deepEqual(claims("It takes 52 ms."), ["prose: 52 ms"]);
  assert.deepEqual(claims("It takes 51 GB."), ["prose: 51 GB"]); // the number is there, as something else
  assert.deepEqual(
    claims("A batch makes 999 tokens/s, **44x** as many, from 20 to 30% of\n1,482 tok/s and 9.5\u00a0µs."),
    [
      "prose: 999 tokens/s",
      "prose: 44x",
      "prose: 20 to 30%",
      "prose: 1,482 tok/s",
      "prose: 9.5\u00a0µs",
    ],
  );
  assert.deepEqual(claims("", 'md`It took 51 ms, ${x} GB and ${ms(y)}.`; title("3.1x"); // 7 ms\n'), [
    "code: 51 ms", // its own output is no witness
    "code: 3.1x",
  ]);
  assert.deepEqual(claims("The source reports **44x** here.", "", ["The source reports 44x"]), []);
  assert.deepEqual(claims("```ts\nsleep(40 ms)\n```\nand `5 ms` of [1](https://a.b/3x)"), []);
});

Deno.test("a fact that no notebook states any more is found", () => {
  const notebook = { cells: [{ id: "a", cell_type: "markdown", source: ["It is\n", "44x."] }] } as Notebook;
  assert.deepEqual(unusedFacts(notebook, ["It is 44x", "It is 45x"]), ["It is 45x"]);
});

Deno.test("converted to HTML by nbconvert, every chart is a picture that needs no JavaScript", async () => {
  await using converted = await convertedNotebooks();
  for (const { name, notebook } of notebooks) {
    const text = await Deno.readTextFile(join(converted.folder, `${name}.html`));
    const html = text.replaceAll(/<script[^]*?<\/script>/g, "");
    const images = [...html.matchAll(/<img [^>]*src="data:image\/svg\+xml;base64,([^"]*)"/g)];
    const pictures = images.map(([, base64]) => new TextDecoder().decode(Uint8Array.fromBase64(base64)));
    const expected = chartsOf(notebook).map(({ data }) => [data["image/svg+xml"]].flat().join(""));
    assert.deepEqual(pictures.map(({ length }) => length), expected.map(({ length }) => length), name);
    assert.deepEqual(pictures, expected, name);
  }
});

type Node = Record<string, unknown>;

/** All objects of a specification. */
function nodes(value: unknown): Node[] {
  if (Array.isArray(value)) return value.flatMap(nodes);
  return value && typeof value === "object" ? [value as Node, ...Object.values(value).flatMap(nodes)] : [];
}

/** For each quantity along an axis of each view, the titles that its layers give it. */
function axes(view: Node): unknown[][] {
  const parts = ["vconcat", "hconcat", "concat"].flatMap((key) => (view[key] ?? []) as Node[]);
  if (parts.length) return parts.flatMap(axes);
  return ["x", "y"].flatMap((channel) => {
    const channels = nodes(view).map(({ encoding }) => ((encoding as Node | undefined)?.[channel] ?? {}) as Node);
    const shown = channels.filter(({ type, axis }) =>
      type === "quantitative" && axis !== null && !(axis as Node | undefined)?.labelExpr // which writes names
    );
    return shown.length ? [shown.map(({ title, axis }) => title ?? (axis as Node | undefined)?.title)] : [];
  });
}

function hasWords(title: unknown): boolean {
  const text = typeof title === "object" ? (title as { text?: unknown } | null)?.text : title;
  return [text].flat().join(" ").trim().length > 0;
}
