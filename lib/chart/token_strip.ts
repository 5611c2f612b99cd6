/** A text as the model reads it: cut into tokens, each with its number. */

import { cellStyles, visible } from "./grid.ts";
import type { TokenNames } from "./padding.ts";
import { type Chart, type ChartOptions, makeChart } from "./specification.ts";

/** What a {@link tokenStrip} shows. */
export interface TokenStripOptions extends ChartOptions {
  /** Tokens that the model added to the text, in a colour of their own. */
  generated?: readonly number[];
  /** Writes its id below each token. Default true. */
  showIds?: boolean;
}

const width = 680, gap = 3, lineGap = 8;
const letter = 7.8; // pixels of a 13-pixel monospaced letter
const fonts = "Menlo, Consolas, DejaVu Sans Mono, Liberation Mono, monospace";

/**
 * A text as a strip of tokens, on as many lines as it takes. Spaces show as `·` and line ends as `↵`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { tokenStrip } from "../chart.ts";
 *
 * const names = { tokenToText: (id: number) => ({ 12295: "Never", 423: " have" })[id]! };
 * const chart = tokenStrip([12295], names, { title: "One more token", generated: [423] });
 * assert.equal(chart.description, "One more token. 2 tokens: Never (12295), ·have (423, generated).");
 * ```
 */
export function tokenStrip(
  ids: readonly number[],
  names: TokenNames,
  { title, subtitle, generated = [], showIds = true }: TokenStripOptions,
): Chart {
  if (!ids.length && !generated.length) throw new RangeError("Cannot draw a strip without tokens.");
  const height = showIds ? 40 : 26;
  const tokens = [
    ...ids.map((id) => ({ id, kind: GIVEN })),
    ...generated.map((id) => ({ id, kind: NEW })),
  ].map(({ id, kind }) => ({ id, kind, text: visible(names.tokenToText(id)) }));
  const cells = lay(tokens, showIds).map(({ line, ...cell }) => {
    const top = line * (height + lineGap);
    return { ...cell, top, bottom: top + height, middle: (cell.left + cell.right) / 2 };
  });
  const words = tokens.map(({ text, id, kind }) => {
    const notes = [...showIds ? [String(id)] : [], ...kind === NEW ? [NEW] : []];
    return notes.length ? `${text} (${notes.join(", ")})` : text;
  });
  const kinds = generated.length ? [GIVEN, NEW] : [GIVEN], styles = [cellStyles[0], cellStyles[2]];
  const color = (style: "fill" | "outline") => ({
    field: "kind",
    title: null,
    scale: { domain: kinds, range: styles.map((one) => one[style]) },
    legend: kinds.length > 1 ? {} : null,
  });
  const ink = { condition: { test: `datum.kind === "${NEW}"`, value: styles[1].text }, value: styles[0].text };
  const bottom = Math.max(...cells.map(({ bottom }) => bottom));
  const pixels = (field: string, size: number, more = {}) => ({
    field,
    type: "quantitative",
    axis: null,
    scale: { domain: [0, size], nice: false, ...more },
  });
  const text = (field: string, dy: number, more: Record<string, unknown>) => ({
    mark: { type: "text", baseline: "middle", font: fonts, dy, ...more },
    encoding: { x: pixels("middle", width), text: { field, type: "nominal" }, color: ink },
  });
  return makeChart(`${title}. ${tokens.length} tokens: ${words.join(", ")}.`, {
    title: { text: title, subtitle },
    width,
    height: bottom,
    data: { values: cells },
    encoding: { y: pixels("top", bottom, { reverse: true }) },
    layer: [
      {
        mark: { type: "rect", cornerRadius: 3, strokeWidth: 1 },
        encoding: {
          x: pixels("left", width),
          x2: { field: "right" },
          y2: { field: "bottom" },
          fill: color("fill"),
          stroke: color("outline"),
        },
      },
      text("text", 13, { fontSize: 13 }),
      ...showIds ? [text("id", 29, { fontSize: 10, opacity: 0.9 })] : [],
    ],
  });
}

const GIVEN = "token", NEW = "generated";

/** Puts tokens side by side and begins a new line where one is full. */
function lay<T extends { text: string; id: number }>(tokens: readonly T[], showIds: boolean) {
  let line = 0, left = 0;
  return tokens.map((token) => {
    const wide = Math.max(letter * letters(token.text), showIds ? 6 * String(token.id).length : 0) + 10;
    if (left > 0 && left + wide > width) line++, left = 0;
    const cell = { ...token, line, left, right: Math.min(width, left + wide) };
    left += wide + gap;
    return cell;
  });
}

/** How many letters' room a text takes; those of Chinese and its neighbours, and emoji, take two. */
function letters(text: string): number {
  return [...text].reduce(
    (sum, character) => sum + (/[\u1100-\uffff]|[\u{10000}-\u{10ffff}]/u.test(character) ? 2 : 1),
    0,
  );
}
