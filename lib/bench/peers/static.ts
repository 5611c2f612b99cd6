/** The workload `static`: the same prompt in batches of several sizes, prefill included. */

import { FOX } from "../fox.ts";
import { CANDIDATES } from "./catalog.ts";
import { compare, doubts, ratiosOf } from "./compare.ts";
import type { Workload } from "./findings.ts";
import { answers, benchChart, RATES, tables } from "./report.ts";

/** All peers can do it. */
export const staticBatches: Workload = {
  peers: CANDIDATES.map(({ name }) => name),
  repeats: 5,
  requests: 0,
  async bench(contestants, options) {
    const { where, maxTokens, repeats } = options;
    const standings = await compare(contestants, { ids: FOX, ...options });
    const subtitle = `${where.model}, ${FOX.length}-token prompts, ${maxTokens} new tokens; ${where.machine}`;
    const text = [
      `${subtitle}; medians of ${repeats} runs in turns\n` +
      "Below each column: omnibus / this peer, the geometric mean over the batch sizes and the least.",
      tables(standings),
      answers(standings),
      ...doubts(standings),
    ].join("\n\n");
    const result = {
      ...{ promptTokens: FOX.length, maxTokens, repeats, contestants: standings },
      ratios: Object.fromEntries(RATES.map(([heading, rate]) => [heading, ratiosOf(standings, "omnibus", rate)])),
    };
    return { text, result, chart: benchChart(standings, { maxTokens, subtitle }) };
  },
};
