/** What becomes of the probabilities of the next token: one picture of the likeliest tokens for each way to change them. */

import { cellStyles, labels, visible } from "./grid.ts";
import type { TokenNames } from "./padding.ts";
import { type Chart, type ChartOptions, makeChart } from "./specification.ts";
import { percent } from "./words.ts";

/** One way to change them. */
export interface Distribution {
  /** What stands above its picture. */
  name: string;
  /** [V]: the probability of each token. */
  probabilities: ArrayLike<number>;
}

/** What {@link distributionBars} shows. */
export interface DistributionBarsOptions extends ChartOptions {
  /** [V]: the model's own probabilities. They say which tokens are shown, in which order, and where the marks are. */
  model: ArrayLike<number>;
  /** How many of the likeliest tokens to show. Default 16. */
  count?: number;
}

/**
 * For each distribution the model's likeliest tokens as bars, with a mark where the model itself has them, and in words what
 * is left to all other tokens.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { distributionBars } from "../chart.ts";
 *
 * const names = { tokenToText: (id: number) => [" be", " not", " go"][id] };
 * const chart = distributionBars([{ name: "top-k 1", probabilities: [0, 1, 0] }], names, {
 *   title: "One token is left",
 *   model: [0.3, 0.6, 0.1],
 *   count: 2,
 * });
 * assert.equal(chart.description, "One token is left. top-k 1: ·not 100%, ·be 0%; 1 token can come, those not shown with 0%.");
 * ```
 */
export function distributionBars(
  distributions: readonly Distribution[],
  names: TokenNames,
  { title, subtitle, model, count = 16 }: DistributionBarsOptions,
): Chart {
  if (!distributions.length) throw new RangeError("Cannot chart distributions: there are none.");
  const shown = Array.from(model, (_, id) => id).sort((a, b) => model[b] - model[a] || a - b).slice(0, count);
  const texts = shown.map((id) => visible(names.tokenToText(id)));
  const all = distributions.map(({ name, probabilities }) => {
    const bars = shown.map((id, place) => ({ place, probability: probabilities[id], model: model[id] }));
    const others = 1 - bars.reduce((sum, { probability }) => sum + probability, 0);
    const possible = Array.from(probabilities).filter((probability) => probability > 0).length;
    const can = `${possible.toLocaleString("en")} ${possible === 1 ? "token" : "tokens"} can come`;
    return { name, bars, rest: `${can}, those not shown with ${percent(others > 1e-9 ? others : 0)}` };
  });
  const words = all.map(({ name, bars, rest }) =>
    `${name}: ${
      bars.slice(0, 5).map(({ probability }, i) => `${texts[i]} ${percent(probability)}`).join(", ")
    }; ${rest}.`
  );
  const most = Math.max(...all.flatMap(({ bars }) => bars.flatMap(({ probability, model }) => [probability, model])));
  return makeChart(`${title}. ${words.join(" ")}`, {
    title: { text: title, subtitle },
    spacing: 14,
    vconcat: all.map(({ name, bars, rest }, i) => ({
      title: { text: `${name}: ${rest}`, fontSize: 12, fontWeight: "bold", offset: 4 },
      width: { step: 36 },
      height: 74,
      data: { values: bars },
      encoding: {
        x: {
          field: "place",
          type: "ordinal",
          title: null,
          scale: { paddingInner: 0.2 },
          axis: i === all.length - 1 ? { ...labels(texts), labelAngle: -45 } : null,
        },
      },
      layer: [
        {
          mark: { type: "bar", color: cellStyles[0].fill },
          encoding: {
            y: {
              field: "probability",
              type: "quantitative",
              title: "Probability",
              scale: { domain: [0, most * 1.05], nice: false },
              axis: { format: "~%", tickCount: 3, minExtent: 40 },
            },
          },
        },
        {
          mark: { type: "tick", thickness: 3, color: "#d55e00", opacity: 1 },
          encoding: { y: { field: "model", type: "quantitative" } },
        },
      ],
    })),
  });
}
