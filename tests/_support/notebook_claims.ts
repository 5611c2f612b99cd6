/**
 * Finds numbers that somebody typed where the notebook should have computed them. A number with a unit of time, speed,
 * memory, share or ratio looks measured: the next run on another machine would contradict it.
 */

import type { Notebook } from "./stored_notebooks.ts";

/** A number with its unit, and the cell that it stands in. */
export interface Claim {
  cell: string;
  /** As it stands there, e.g. `1,482 tokens/s`. */
  text: string;
}

/** Units by what they measure, and how each is written. */
const UNITS: Record<string, RegExp> = {
  ratio: /x\b|(?<=\d)×(?!\s?[\w(])|times\b|-fold\b/,
  share: /%|percent\b/,
  time: /[mµn]s\b|s\b(?!\/)|seconds?\b|milliseconds?\b|minutes?\b/,
  speed: /(?:tokens?|tok|prompts?|GB|MB|[GT]?FLOPs?)(?:\/s\b| per second\b| a second\b|\/step\b)|[GT]FLOPS\b/,
  memory: /[kMG]i?B\b(?!\/s| per second)|(?:mega|giga)?bytes?\b/,
};

const NUMBER = /(?<![\w.,^$-])[\d,]*\.?\d+(?:\.\d+)?/;
const CLAIM = new RegExp(
  `${NUMBER.source}(?: (?:to|and|or|–|→) ${NUMBER.source})?[\\s-]?` +
    `(?:${Object.values(UNITS).map(({ source }) => source).join("|")})`,
  "g",
);

/**
 * The claims of a notebook's prose and of the strings in its code that nothing stands behind. In prose, an output of this
 * notebook may stand behind a number: the same one, in an output that has the same kind of unit. Behind all of them may
 * stand a fact of `facts`, which has the words of the notebook.
 */
export function unfoundedClaims(notebook: Notebook, facts: readonly string[]): Claim[] {
  const computed = notebook.cells.flatMap(({ outputs = [] }) => outputs.flatMap(textsOf));
  return notebook.cells.flatMap(({ id, cell_type, source }) => {
    const text = source.join("");
    const [typed, behind] = cell_type === "markdown" ? [prose(text), computed] : [strings(text), []];
    return claimsIn(without(typed, facts)).filter((claim) => !behind.some((output) => says(output, claim)))
      .map((claim) => ({ cell: id, text: claim }));
  });
}

/** Facts whose words stand nowhere in the notebook. */
export function unusedFacts(notebook: Notebook, facts: readonly string[]): string[] {
  const all = notebook.cells.map(({ source }) => flat(source.join(""))).join("\n");
  return facts.filter((fact) => !all.includes(flat(fact)));
}

function claimsIn(text: string): string[] {
  return [...text.matchAll(CLAIM)].map(([claim]) => claim);
}

/** Whether an output has all of a claim's numbers, exactly or rounded to as many decimals, and its kind of unit. */
function says(output: string, claim: string): boolean {
  const unit = Object.values(UNITS).find((unit) => new RegExp(`(?:${unit.source})$`).test(claim))!;
  const inOutput = numbersIn(output).map(Number);
  return unit.test(output) && numbersIn(claim).every((number) => {
    const decimals = number.split(".")[1]?.length ?? 0;
    return inOutput.some((other) => other.toFixed(decimals) === number);
  });
}

function numbersIn(text: string): string[] {
  return [...text.matchAll(new RegExp(NUMBER.source, "g"))].map(([number]) => number.replaceAll(",", ""));
}

/** A cell's text without what is no prose: code, links' targets, formulas, figures that come from the notebook itself. */
function prose(markdown: string): string {
  return flat(
    markdown
      .replaceAll(/^(```|~~~)[^]*?^\1/gm, "")
      .replaceAll(/`[^`\n]*`/g, "")
      .replaceAll(/\]\([^)]*\)/g, "]")
      .replaceAll(/<[^>]*>/g, " "),
  );
}

/** The strings of a cell of code, without what is computed in them; comments are none. */
function strings(code: string): string {
  const found = [
    ...code.replaceAll(/\/\*[^]*?\*\/|(?<!:)\/\/.*$/gm, "").matchAll(/`(?:[^`\\]|\\.)*`|"(?:[^"\\\n]|\\.)*"/g),
  ];
  return flat(found.map(([text]) => text.slice(1, -1).replaceAll(/\$\{[^{}]*\}/g, "…")).join(" | "));
}

function without(text: string, facts: readonly string[]): string {
  return facts.reduce((rest, fact) => rest.replaceAll(flat(fact), "…"), text);
}

function textsOf({ text, data = {} }: { text?: string[]; data?: Record<string, unknown> }): string[] {
  const forms = [text, data["text/plain"], data["text/markdown"]];
  return forms.flatMap((form) => form ? [flat([form].flat().join(""))] : []);
}

/** On one line, without emphasis, so that a line break or a `**` hides nothing. */
function flat(text: string): string {
  return text.replaceAll("**", "").replaceAll(/\s*\n\s*/g, " ");
}
