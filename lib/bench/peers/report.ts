/** What a comparison looks like: tables and a chart. */

import { type Chart, stackCharts, throughputChart } from "../../chart.ts";
import { table } from "../../util/table.ts";
import { type Dtype, DTYPES } from "../../backend/ops.ts";
import type { Missing } from "./rounds.ts";
import { CONTROL, percent, type Point, type Ratio, ratiosByRound, ratiosOf, type Standing } from "./compare.ts";

/** The rates that are reported, with their headings. */
const RATES: readonly [heading: string, rate: (point: Point) => number | null][] = [
  ["end to end", (point) => point.throughput],
  ["decode only", (point) => point.decodeThroughput],
];

/** How Omnibus stands to the others, by each of these. */
export function allRatios(standings: readonly Standing[]): Record<string, Ratio[]> {
  return Object.fromEntries(RATES.map(([heading, rate]) => [heading, ratiosOf(standings, "omnibus", rate)]));
}

/**
 * For each precision and rate a table of tokens per second: a line for each batch size, a column for each contestant.
 * Below it, how `name` stands to each of them over all batch sizes.
 */
export function tables(standings: readonly Standing[], name = "omnibus"): string {
  const sections = [];
  for (const [dtype, group] of byDtype(standings)) {
    for (const [heading, rate] of RATES) {
      if (group.some(({ points }) => points.some((point) => rate(point) === null))) continue;
      const ratios = ratiosOf(group, name, rate), best = ratios.find(({ against }) => against === "best");
      const rows = group[0].points.map(({ batchSize }, i) => [
        `${batchSize}`,
        ...group.map(({ points }) => `${rate(points[i])!.toFixed(1)} ±${spread(points[i])}`),
        ...best ? [times(best.ratios[i])] : [],
      ]);
      const summary = (label: string, value: (ratio: Ratio) => number) => [
        label,
        ...group.map((one) => ratios.find(({ against }) => against === one.name)).map((r) => r ? times(value(r)) : ""),
        times(value(best!)),
      ];
      if (best) rows.push(summary("geo. mean", (r) => r.geometricMean), summary("least", (r) => r.least));
      const own = group.find((one) => one.name === name);
      if (own && ratios.length && rate === RATES[0][1]) {
        const rounds = group.map((one) => one === own ? [] : ratiosByRound(own, one));
        const extreme = (label: string, pick: (...values: number[]) => number) => [
          label,
          ...rounds.map((values) => values.length ? times(pick(...values)) : ""),
          ...best ? [""] : [],
        ];
        rows.push(extreme("lowest round", Math.min), extreme("highest round", Math.max));
      }
      const columns = ["batch", ...group.map((one) => one.name), ...best ? [`${name}/best`] : []];
      sections.push(`${dtype}, tokens per second ${heading}\n\n${table([columns, ...rows])}`);
    }
  }
  return sections.join("\n\n");
}

/** How far each contestant's answer is from the reference's. */
export function answers(standings: readonly Standing[]): string {
  const rows = standings.filter(({ name }) => name !== CONTROL).map(({ name, dtype, logitsError, sameTokens }) => [
    `${name} ${dtype}`,
    percent(logitsError),
    sameTokens ? "same" : "other",
  ]);
  return table([["", "error of the logits", "tokens"], ...rows]);
}

/** Who is missing, a sentence each. */
export function absences(missing: readonly Missing[]): string[] {
  return missing.map(({ name, dtype, reason }) => `Missing: ${name} ${dtype}. ${reason}`);
}

/** End-to-end throughput: a chart for each precision, one below the other. */
export function benchChart(standings: readonly Standing[], { maxTokens, subtitle }: {
  maxTokens: number;
  subtitle: string;
}): Chart {
  return stackCharts(
    ...byDtype(standings).map(([dtype, group]) =>
      throughputChart(
        group.filter(({ name }) => name !== CONTROL).map(({ name, points }) => ({
          name,
          points: points.map(({ batchSize, throughput, repeats }) => {
            const tokens = batchSize * maxTokens;
            return {
              batchSize,
              value: throughput,
              low: tokens / Math.max(...repeats),
              high: tokens / Math.min(...repeats),
            };
          }).sort((a, b) => a.batchSize - b.batchSize),
        })),
        { title: `${dtype}: ${finding(group)}`, subtitle },
      )
    ),
  );
}

function finding(group: readonly Standing[]): string {
  const best = ratiosOf(group, "omnibus", (point) => point.throughput).find(({ against }) => against === "best");
  return best
    ? `Omnibus makes ${times(best.geometricMean)} the tokens of the best peer`
    : group.filter(({ name }) => name !== CONTROL).map(({ name }) => name).join(", ");
}

/** What belongs to each precision that there is. */
export function byDtype<T extends { dtype: Dtype }>(standings: readonly T[]): [string, T[]][] {
  return DTYPES.map((dtype): [string, T[]] => [dtype, standings.filter((one) => one.dtype === dtype)])
    .filter(([, group]) => group.length);
}

function spread({ repeats, totalSeconds }: Point): string {
  return `${Math.round((Math.max(...repeats) - Math.min(...repeats)) / totalSeconds * 50)}%`;
}

/** `1.5` -> `1.50x` */
export function times(ratio: number): string {
  return `${ratio.toFixed(2)}x`;
}
