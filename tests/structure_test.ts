import assert from "node:assert/strict";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** What must not be, and where it still is. An exception that is none any more must go, too. */
interface Rule {
  name: string;
  /** Which files, below the project's folder. */
  of: RegExp;
  /** What they import nothing from: paths below the project's folder, or the specifiers of packages. */
  nothingFrom: RegExp;
  except?: string[];
}

const RULES: Rule[] = [
  { name: "lib imports nothing from tests", of: /^lib\//, nothingFrom: /^tests\// },
  { name: "charts import nothing from the command line", of: /^lib\/chart/, nothingFrom: /^lib\/cli\// },
  {
    name: "commands stand on all else, and nothing stands on them",
    of: /^lib\/(?!cli\/)/,
    nothingFrom: /^lib\/cli\//,
    except: ["lib/bench/peers/webgpu_capture.ts", "lib/bench/peers/webgpu_profile.ts"], // programs themselves
  },
  {
    name: "the hub knows no format",
    of: /^lib\/hub\//,
    nothingFrom: /^lib\/(?!hub\/|util\/)/,
  },
  {
    name: "util stands on nothing",
    of: /^lib\/util\//,
    nothingFrom: /^lib\/(?!util\/)/,
  },
  {
    name: "what could run in a browser imports nothing from Node.js or an installation",
    of: /^lib\/(engine|gpt2|backend|webgpu|tokenizer|openai)\//,
    nothingFrom: /^node:|^lib\/((tensorflow|onednn)\/install|install|hub|jupyter|cli)\b/,
    except: [
      "lib/gpt2/quantize.ts",
      "lib/tokenizer/tokenizer.ts",
    ],
  },
  {
    name: "what installs libraries knows none of them",
    of: /^lib\/install\//,
    nothingFrom: /^lib\/(?!install\/|util\/)/,
  },
  {
    name: "OpenAI's formats know nothing of what carries them",
    of: /^lib\/openai\//,
    nothingFrom: /^hono|^lib\/(serve|batch)\//,
  },
];

/** Uses of `Deno` in what could run in a browser. */
const DENO_USERS = [
  "lib/gpt2/config_file.ts",
  "lib/gpt2/quantize.ts",
  "lib/tokenizer/tokenizer.ts",
];

/** Imports that close a circle and are still there. */
const CIRCULAR_IMPORTS: string[] = [];

/** What the files import: other files below the project's folder, or specifiers of packages. */
type Imports = ReadonlyMap<string, readonly string[]>;

/** The specifiers in a module's text, type-only and dynamic ones too; examples in comments do not begin their line. */
function specifiers(text: string): string[] {
  const statements = text.matchAll(/^(?:import|export)\s(?:[\w*{}\s,$]*?\bfrom\s)?\s*"([^"]+)"/gm);
  const calls = code(text).matchAll(/\bimport\(\s*"([^"]+)"/g);
  return [...statements, ...calls].map(([, specifier]) => specifier);
}

/** A text without its comments, as far as the formatter's layout tells. */
function code(text: string): string {
  return text.replace(/^\s*(\/\*\*?|\*|\/\/).*$/gm, "").replace(/ \/\/ .*$/gm, "");
}

async function* filesBelow(folder: string, name: RegExp): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(join(ROOT, folder))) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* filesBelow(path, name);
    else if (name.test(entry.name)) yield path;
  }
}

const texts = new Map<string, string>();
for await (const path of filesBelow("lib", /\.ts$/)) texts.set(path, await Deno.readTextFile(join(ROOT, path)));

const imports: Imports = new Map([...texts].map(([path, text]) => [
  path,
  specifiers(text).map((specifier) =>
    specifier.startsWith(".") ? relative(ROOT, join(ROOT, dirname(path), specifier)).replaceAll("\\", "/") : specifier
  ),
]));

function offenders(imports: Imports, { of, nothingFrom }: Rule): string[] {
  return [...imports].filter(([file, all]) => of.test(file) && all.some((path) => nothingFrom.test(path)))
    .map(([file]) => file).sort();
}

/** A circle of imports, from a file back to itself; undefined if there is none. */
function circle(imports: Imports, except: readonly string[] = []): string[] | undefined {
  const done = new Set<string>();
  const search = (file: string, way: readonly string[]): string[] | undefined => {
    if (way.includes(file)) return [...way.slice(way.indexOf(file)), file];
    if (done.has(file)) return undefined;
    for (const next of imports.get(file) ?? []) {
      const found = except.includes(`${file} -> ${next}`) ? undefined : search(next, [...way, file]);
      if (found) return found;
    }
    done.add(file);
  };
  for (const file of imports.keys()) {
    const found = search(file, []);
    if (found) return found;
  }
}

Deno.test("every import of lib is understood: relative ones lead to files, others to what deno.json or Node.js has", async () => {
  const { imports: packages } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  for (const [file, all] of imports) {
    for (const path of all) {
      const known = /^(lib|tests)\//.test(path)
        ? await Deno.stat(join(ROOT, path)).then(({ isFile }) => isFile, () => false)
        : path.startsWith("node:") || Object.keys(packages).some((name) => `${path}/`.startsWith(`${name}/`));
      assert.ok(known || path === "deno.json", `${file} imports ${path}`);
    }
    const from = code(texts.get(file)!).match(/^(import\b(?!\()|.*\bfrom ").*$/gm) ?? [];
    assert.ok(all.length >= from.filter((line) => /(import|from) "/.test(line)).length, `${file}: ${from}`);
  }
  assert.ok([...imports.values()].flat().length > 500);
});

for (const rule of RULES) {
  Deno.test(rule.name, () => assert.deepEqual(offenders(imports, rule), (rule.except ?? []).toSorted()));
}

Deno.test("what could run in a browser asks Deno nothing", () => {
  const users = [...texts].filter(([file, text]) =>
    /^lib\/(engine|gpt2|backend|webgpu|tokenizer|openai)\//.test(file) &&
    /\bDeno\??\.\w|globalThis\.Deno/.test(code(text))
  );
  assert.deepEqual(users.map(([file]) => file).sort(), DENO_USERS);
});

Deno.test("no file of lib imports itself by any way, types included", () => {
  assert.equal(circle(imports, CIRCULAR_IMPORTS)?.join(" -> "), undefined);
  for (const one of CIRCULAR_IMPORTS) {
    assert.ok(circle(imports, CIRCULAR_IMPORTS.filter((other) => other !== one)), `${one} is no circle any more`);
  }
});

Deno.test("control: imports of every form are seen, examples are not, and circles and offenders are found", () => {
  const text = `/**
 * import { no } from "./example.ts";
 */
import "./a.ts";
import type {
  B,
} from "./b.ts"; // not import("./no.ts")
export * from "./c.ts";
export { type D } from "./d.ts";
const from = "./no.ts";
export const e: typeof import("./e.ts") = await import("./f.ts");
import g, * as all from "./g.json" with { type: "json" };
`;
  assert.deepEqual(specifiers(text).map((path) => path[2]).sort(), ["a", "b", "c", "d", "e", "f", "g"]);
  const made = (...edges: [string, string][]): Imports => new Map(edges.map(([from, to]) => [from, [to]]));
  assert.deepEqual(circle(made(["x", "a"], ["a", "b"], ["b", "c"], ["c", "a"])), ["a", "b", "c", "a"]);
  assert.equal(circle(made(["a", "b"], ["b", "c"], ["x", "c"])), undefined);
  assert.equal(circle(made(["a", "b"], ["b", "a"]), ["b -> a"]), undefined);
  const bad = ["lib/util/a.ts", "lib/chart/a.ts", "lib/hub/a.ts"];
  const wrong = made([bad[0], "tests/b.ts"], [bad[1], "lib/cli/b.ts"], [bad[2], "lib/safetensors/b.ts"]);
  assert.deepEqual(RULES.slice(0, 4).map((rule) => offenders(wrong, rule)), [[bad[0]], [bad[1]], [bad[1]], [bad[2]]]);
});

Deno.test("what lib/mod.ts exports is chosen name by name, and every function has an example", () => {
  const exports = [...texts.get("lib/mod.ts")!.matchAll(/^export (?:type )?(?:\*|\{([^}]*)\}) from "\.\/([^"]*)";$/gm)];
  assert.ok(exports.length > 20);
  const functions: string[] = [], without: string[] = [];
  for (const [statement, names, file] of exports) {
    assert.ok(names, `${statement} exports whatever there is`);
    for (const name of names.split(",").map((name) => name.trim())) {
      const declared = texts.get(`lib/${file}`)!.split(new RegExp(`^export (?:async )?function\\*? ${name}\\b`, "m"));
      if (declared.length === 1) continue;
      functions.push(name);
      if (!declared[0].slice(declared[0].lastIndexOf("/**")).includes("@example")) without.push(name);
    }
  }
  assert.ok(functions.length > 20, `${functions}`);
  assert.deepEqual(without, []);
});

/** A path below the project's folder, with or without the steps that lead up to it. */
const NAMED = /(?<![\w./])(?:\.\.\/)*((?:lib|tests|models|notebooks)\/[\w/.-]*\.(?:ts|mjs|py|sh|md|ipynb))\b/g;

Deno.test("files that comments, pages and notebooks name by their path are there", async () => {
  const missing: string[] = [];
  let named = 0;
  const places = ["README.md", "models/README.md"];
  for (const folder of ["lib", "tests", "notebooks"]) {
    for await (const path of filesBelow(folder, /\.(ts|md|py|sh|ipynb)$/)) places.push(path);
  }
  for (const place of places) {
    const text = await Deno.readTextFile(join(ROOT, place));
    for (const [, path] of text.matchAll(NAMED)) {
      named++;
      if (place !== "tests/structure_test.ts" && !await Deno.stat(join(ROOT, path)).catch(() => null)) {
        missing.push(`${place}: ${path}`);
      }
    }
  }
  assert.deepEqual(missing, []);
  assert.ok(named > 100, `${named} names`);
});
