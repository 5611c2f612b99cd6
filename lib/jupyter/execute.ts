/** Executes notebooks in a fresh Deno kernel and judges what came out. */

import { fileURLToPath } from "node:url";
import type { JupyterEnvironment } from "./environment.ts";
import { lines } from "../util/lines.ts";
import { parseJson } from "../util/json.ts";

/** Options of {@link executeNotebook}. */
export interface ExecuteOptions {
  /** Seconds that a cell may take. Default: 600. */
  cellSeconds?: number;
  /** Tells the notebook, as `OMNIBUS_QUICK=1`, to use its reduced sizes. */
  quick?: boolean;
  /** Hears which cell starts, of how many. */
  onCell?: (cell: number, cells: number) => void;
}

/** Why a notebook failed. */
export interface NotebookFailure {
  /** The cell's position, from 0. */
  cell: number;
  /** The cell's source. */
  source: string;
  /** The error's name, or `Timeout`, `DeadKernel`, `NoFallback`. */
  name: string;
  /** What the error says. */
  message: string;
  /** Where it came from, as far as known; for a dead kernel, the end of its stderr. */
  traceback: string;
}

/** The notebook's text with the outputs of this run, or why there is none. */
export type NotebookOutcome = { text: string; failure?: undefined } | { text?: undefined; failure: NotebookFailure };

type Failure = Omit<NotebookFailure, "source">;

interface Cell {
  source: string | string[];
  metadata?: { tags?: string[] };
  outputs?: Output[];
}

interface Output {
  output_type: string;
  data?: Record<string, unknown>;
  ename?: string;
  evalue?: string;
  traceback?: string[];
}

/**
 * Runs every cell of a notebook, in its own folder, and returns its text with the new outputs. It writes nothing.
 * A cell fails by an error (unless tagged `raises-exception`), by time, by the end of its kernel, or by a chart that
 * has no picture or no text for readers who see no charts.
 */
export async function executeNotebook(
  path: string,
  jupyter: JupyterEnvironment,
  { cellSeconds = 600, quick = false, onCell }: ExecuteOptions = {},
): Promise<NotebookOutcome> {
  const cells: Cell[] = parseJson(await Deno.readTextFile(path)).cells;
  const child = new Deno.Command(jupyter.python, {
    args: [fileURLToPath(new URL("execute.py", import.meta.url)), path, String(cellSeconds)],
    env: { ...jupyter.env, NO_COLOR: "1", OMNIBUS_QUICK: quick ? "1" : "" },
    stdin: "piped", // ends when this process ends, and with it the child and its kernel
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const errors = new Response(child.stderr).text();
  let outcome: { notebook?: string; failure?: Failure } | undefined;
  for await (const line of lines(child.stdout)) {
    const report = JSON.parse(line);
    if ("of" in report) onCell?.(report.cell, report.of);
    else outcome = report;
  }
  const stderr = tail(await errors);
  await Promise.all([child.stdin.close(), child.status]);

  if (!outcome) throw new Error(`Cannot execute ${path}: ${stderr}`);
  const { notebook: text = "", failure = findFailure(JSON.parse(text).cells) } = outcome;
  if (!failure) return { text };
  const source = [cells[failure.cell].source].flat().join("");
  return {
    failure: { ...explain(failure.name === "DeadKernel" ? { ...failure, traceback: stderr } : failure), source },
  };
}

/** What nbclient does not see: errors in displaying a result, and charts that most readers would not see. */
function findFailure(cells: Cell[]): Failure | undefined {
  for (const [cell, { metadata, outputs = [] }] of cells.entries()) {
    for (const { output_type, data = {}, ename = "", evalue = "", traceback = [] } of outputs) {
      if (output_type === "error" && !metadata?.tags?.includes("raises-exception")) {
        return { cell, name: ename, message: evalue, traceback: traceback.join("\n") };
      }
      const missing = missingForms(data);
      if (missing.length) {
        const message = `a chart lacks ${missing.join(" and ")}: show it with show()`;
        return { cell, name: "NoFallback", message, traceback: "" };
      }
    }
  }
}

/** What an output lacks for readers who see no charts; nothing if it is no chart. */
export function missingForms(data: Record<string, unknown>): string[] {
  if (!Object.keys(data).some((type) => /^application\/vnd\.vega/.test(type))) return [];
  const form = (type: string) => [data[type] ?? ""].flat().join("").trim();
  const svg = form("image/svg+xml"), picture = svg || form("image/png"), missing = [];
  if (!picture) missing.push("a picture");
  else if (svg && !/<svg[^>]* aria-label=["'][^"']/.test(svg)) missing.push("a label of its picture");
  if (!form("text/plain")) missing.push("a text");
  return missing;
}

/** Without what repeats itself, or colours a terminal. */
function explain({ cell, name, message, traceback }: Failure): Failure {
  if (message === "Execution failed" && !traceback) { // all that the kernel says
    return { cell, name: "SyntaxError", message: "the kernel could not read this cell", traceback };
  }
  // deno-lint-ignore no-control-regex
  const plain = (text: string) => text.replace(/\x1b\[[0-9;]*m/g, "");
  return { cell, name, message: plain(message), traceback: plain(traceback).replace(`${name}: ${plain(message)}`, "") };
}

/** The end of a stderr, without the warning that every kernel begins with. */
function tail(text: string): string {
  const lines = text.split("\n").filter((line) => line.trim() && !line.includes('"deno jupyter" is unstable'));
  return lines.slice(-5).join("\n");
}
