/** What the model thinks comes next, as pictures: one step as bars, several as a table in shades. */

import { cellStyles, inkOn, labels, shades, visible } from "./grid.ts";
import type { TokenNames } from "./padding.ts";
import { type Chart, type ChartOptions, makeChart } from "./specification.ts";

/** A token, and how likely it is to come next, from 0 to 1. */
export interface CandidateLike {
  /** The token. */
  id: number;
  /** From 0 to 1. */
  probability: number;
}

/** What {@link nextTokenBars} shows. */
export interface NextTokenBarsOptions extends ChartOptions {
  /** Tokens in the vocabulary: those that are no candidates share a bar of their own. */
  vocabSize: number;
}

/**
 * The likeliest next tokens as bars, the likeliest first, and all others together.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { nextTokenBars } from "../chart.ts";
 *
 * const names = { tokenToText: (id: number) => [" be", " not"][id] };
 * const candidates = [{ id: 0, probability: 0.44 }, { id: 1, probability: 0.06 }];
 * const chart = nextTokenBars(candidates, names, { title: "Half is two tokens", vocabSize: 50257 });
 * assert.equal(chart.description, "Half is two tokens. ·be 44%, ·not 6.0%, 50,255 other tokens 50%.");
 * ```
 */
export function nextTokenBars(
  candidates: readonly CandidateLike[],
  names: TokenNames,
  { title, subtitle, vocabSize }: NextTokenBarsOptions,
): Chart {
  if (!candidates.length) throw new RangeError("Cannot chart the next token: there are no candidates.");
  const others = vocabSize - candidates.length;
  const rest = Math.max(0, 1 - candidates.reduce((sum, { probability }) => sum + probability, 0));
  const bars = [
    ...candidates.map(({ id, probability }, i) => ({
      name: visible(names.tokenToText(id)),
      probability,
      kind: i ? LESS_LIKELY : LIKELIEST,
    })),
    ...others > 0 ? [{ name: `${others.toLocaleString("en")} other tokens`, probability: rest, kind: OTHERS }] : [],
  ].map((bar, place) => ({ ...bar, place, text: percent(bar.probability) }));
  const most = Math.max(...bars.map(({ probability }) => probability));
  const kinds = [LIKELIEST, LESS_LIKELY, OTHERS], styles = [cellStyles[2], cellStyles[0], cellStyles[1]];
  return makeChart(`${title}. ${bars.map(({ name, text }) => `${name} ${text}`).join(", ")}.`, {
    title: { text: title, subtitle },
    width: 420,
    height: { step: 24 },
    data: { values: bars },
    encoding: {
      y: {
        field: "place",
        type: "ordinal",
        title: null,
        scale: { paddingInner: 0.2 },
        axis: labels(bars.map(({ name }) => name)),
      },
      x: {
        field: "probability",
        type: "quantitative",
        title: "Probability of coming next",
        scale: { domain: [0, most * 1.15], nice: false }, // room for the numbers
        axis: { format: "~%", tickCount: 6 },
      },
    },
    layer: [
      {
        mark: { type: "bar", strokeWidth: 1 },
        encoding: {
          fill: {
            field: "kind",
            title: null,
            scale: { domain: kinds, range: styles.map(({ fill }) => fill) },
            legend: null,
          },
          stroke: {
            field: "kind",
            title: null,
            scale: { domain: kinds, range: styles.map(({ outline }) => outline) },
            legend: null,
          },
        },
      },
      {
        mark: { type: "text", align: "left", dx: 6, fontSize: 12 },
        encoding: { text: { field: "text", type: "nominal" } },
      },
    ],
  });
}

const LIKELIEST = "likeliest", LESS_LIKELY = "less likely", OTHERS = "others";

/**
 * The likeliest tokens of several steps, a column a step and the likeliest on top, shaded by probability.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { candidateGrid } from "../chart.ts";
 *
 * const names = { tokenToText: (id: number) => [" be", " not", " done"][id] };
 * const steps = [[{ id: 0, probability: 0.44 }, { id: 1, probability: 0.06 }], [{ id: 2, probability: 0.11 }]];
 * const chart = candidateGrid(steps, names, { title: "Two steps" });
 * assert.equal(chart.description, "Two steps. Step 1: ·be 44%, ·not 6.0%. Step 2: ·done 11%.");
 * ```
 */
export function candidateGrid(
  steps: readonly (readonly CandidateLike[])[],
  names: TokenNames,
  { title, subtitle }: ChartOptions,
): Chart {
  const cells = steps.flatMap((candidates, step) =>
    candidates.map(({ id, probability }, rank) => ({
      step,
      rank,
      token: visible(names.tokenToText(id)),
      probability,
      percent: percent(probability),
      ink: inkOn(probability),
    }))
  );
  if (!cells.length) throw new RangeError("Cannot chart the next tokens: there are no candidates.");
  const words = steps.map((_, step) => {
    const column = cells.filter((cell) => cell.step === step);
    return `Step ${step + 1}: ${column.map(({ token, percent }) => `${token} ${percent}`).join(", ")}.`;
  });
  const ranks = Math.max(...steps.map(({ length }) => length));
  const longest = Math.max(...cells.map(({ token }) => token.length));
  const text = (field: string, dy: number, more: Record<string, unknown>) => ({
    mark: { type: "text", baseline: "middle", dy, ...more },
    encoding: {
      text: { field, type: "nominal" },
      color: { field: "ink", type: "nominal", scale: null },
    },
  });
  return makeChart(`${title}. ${words.join(" ")}`, {
    title: { text: title, subtitle },
    width: { step: Math.max(58, longest * 7.5 + 14) },
    height: { step: 40 },
    data: { values: cells },
    encoding: {
      x: {
        field: "step",
        type: "ordinal",
        title: "Step",
        scale: { paddingInner: 0.05 },
        axis: { ...labels(steps.map((_, step) => String(step + 1))), orient: "top", labelAngle: 0 },
      },
      y: {
        field: "rank",
        type: "ordinal",
        title: null,
        scale: { paddingInner: 0.08 },
        axis: labels(Array.from({ length: ranks }, (_, rank) => rank ? `choice ${rank + 1}` : "likeliest")),
      },
    },
    layer: [
      {
        mark: { type: "rect", cornerRadius: 3 },
        encoding: {
          fill: {
            field: "probability",
            type: "quantitative",
            scale: { domain: [0, 1], range: shades },
            legend: null,
          },
        },
      },
      text("token", -7, { fontSize: 12 }),
      text("percent", 9, { fontSize: 10 }),
    ],
  });
}

/** Two digits: `44%`, `6.0%`, `0.12%`. */
function percent(share: number): string {
  const value = 100 * share;
  if (value > 0 && value < 0.01) return "<0.01%";
  return `${value >= 9.95 ? Math.round(value) : value >= 0.995 ? value.toFixed(1) : value.toFixed(2)}%`;
}
