/** Charts and progress where the program runs: in a notebook's cell, or in words on a terminal. */

import { Progress } from "../util/progress.ts";
import type { Chart } from "./specification.ts";
import { renderSvg } from "./svg.ts";

/**
 * Shows a chart in the notebook, in the middle of a cell or at its end: `await show(chart)`. Viewers that draw no charts
 * get a picture, and readers who see no picture get `text`. Outside notebooks, the text is printed.
 */
export async function show(chart: Chart, text: string = chart.description): Promise<void> {
  if (!jupyterOrNothing()) return console.log(text);
  const picture = await renderSvg(chart);
  await display({ "application/vnd.vegalite.v5+json": chart, "image/svg+xml": picture, "text/plain": text });
}

/** One output in several forms by their media type, plain text among them: viewers take the best that they know. */
export type Bundle = Record<string, unknown> & { "text/plain": string };

/** Shows an output in the notebook's cell; outside notebooks, its text is printed. */
export async function display(bundle: Bundle): Promise<void> {
  const jupyter = jupyterOrNothing();
  if (!jupyter) return console.log(bundle["text/plain"]);
  await jupyter.display(bundle, { raw: true });
  // The kernel sends outputs from another thread. What it has not sent when the cell ends, some viewers drop.
  await new Promise((resolve) => setTimeout(resolve, 50));
}

/** Shows how far some work is. */
export interface ProgressLike extends Disposable {
  /** Shows that `done` of the total is done. May be called as often as one likes. */
  update(done: number, note?: string): void;
}

/** Progress in the notebook's cell or on the terminal, whichever this is. Declare it with `using`. */
export function progress(label: string, total: number, format: (amount: number) => string = String): ProgressLike {
  return jupyterOrNothing() ? new NotebookProgress(label, total, format) : new Progress(label, total, format);
}

/** One output of a cell, written again at most five times a second. It is sent at once: the work may block the thread. */
class NotebookProgress implements ProgressLike {
  readonly #id = crypto.randomUUID();
  #last = -Infinity;

  constructor(readonly label: string, readonly total: number, readonly format: (amount: number) => string) {}

  update(done: number, note = ""): void {
    const now = performance.now();
    if (now - this.#last < 200 && done < this.total) return;
    const message = this.#last < 0 ? "display_data" : "update_display_data";
    this.#last = now;
    const bar = "█".repeat(Math.round(Math.min(1, done / this.total) * 24)).padEnd(24, "░");
    const line = `${this.label}  ${this.format(done)} of ${this.format(this.total)}${note && `  ${note}`}`;
    const content = { data: { "text/plain": `${bar} ${line}` }, metadata: {}, transient: { display_id: this.#id } };
    jupyterOrNothing()?.broadcast(message, content);
  }

  [Symbol.dispose](): void {}
}

/** Deno's side of the notebook. Elsewhere even to ask for it throws. */
function jupyterOrNothing(): typeof Deno.jupyter | undefined {
  try {
    return Deno.jupyter;
  } catch {
    return undefined;
  }
}
