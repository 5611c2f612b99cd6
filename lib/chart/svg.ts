/** Charts as pictures. Vega is large and is loaded when the first one is drawn. */

import process from "node:process";
import type { Chart } from "./specification.ts";

/** Draws a chart as SVG. */
export async function renderSvg(chart: Chart): Promise<string> {
  const { vega, compile } = await loadVega();
  const view = new vega.View(vega.parse(compile(chart as never).spec), { renderer: "none" });
  const label = chart.description.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
  return (await view.toSVG())
    .replace("<svg ", () => `<svg role="img" aria-label="${label}" `)
    .replace(
      / (d|transform)="[^"]*"/g,
      (path) => path.replace(/\d+\.\d{3,}/g, (digits) => String(+(+digits).toFixed(2))),
    );
}

async function loadVega() {
  const node = process as unknown as { noDeprecation?: boolean };
  const { noDeprecation } = node;
  node.noDeprecation = true; // one of vega's dependencies uses a deprecated module, which is no news to the user
  const [vega, { compile }] = await Promise.all([import("vega"), import("vega-lite")]);
  node.noDeprecation = noDeprecation;
  const { textMetrics } = vega as unknown as { textMetrics: { width: typeof textWidth } };
  textMetrics.width = textWidth;
  return { vega, compile };
}

/** Width of a text in a wide sans-serif. By itself and without a canvas, vega takes 0.8 em a character: too much. */
function textWidth({ fontSize = 11, fontWeight }: { fontSize?: number; fontWeight?: unknown }, text: unknown): number {
  const narrow = /[fijlrtI.,:;'|!()[\] ]/, wide = /[mwMW%@\u2000-\u{10ffff}]/u;
  const widths = [...String(text ?? "")].map((letter) => narrow.test(letter) ? 0.4 : wide.test(letter) ? 1 : 0.65);
  const em = widths.reduce((sum, width) => sum + width, 0);
  return em * fontSize * (fontWeight === "bold" || Number(fontWeight) >= 600 ? 1.1 : 1);
}
