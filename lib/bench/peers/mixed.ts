/** The workload `mixed`: requests of all lengths, all there at the start, in static batches and in a continuous one. */

import { type Chart, formatNumber, stackCharts } from "../../chart.ts";
import { barChart } from "../../chart/bars.ts";
import { table } from "../../util/table.ts";
import { makeRequests, measureService, measureSteps, type Service, type Steps } from "../traffic.ts";
import { percent } from "./compare.ts";
import type { Workload } from "./findings.ts";
import type { Asked, Batching, Served } from "./protocol.ts";
import { byDtype, times } from "./report.ts";
import { type Contestant, inTurns } from "./rounds.ts";

/** Seats of everybody. */
export const SEATS = 32;

/** A way in which a peer takes requests. */
interface Way {
  name: string;
  batching: Batching;
  /** Sorts them beforehand. Default: in the order in which they came. */
  by?: (request: Asked) => number;
}

/**
 * What each peer takes part with. ONNX Runtime GenAI (0.18) is not among them: it exports no GPT-2, and takes requests
 * continuously only for models with paged caches. Who knows how long an answer will be is an oracle: it is there to compare with.
 */
const WAYS: Record<string, readonly Way[]> = {
  omnibus: [
    { name: "omnibus", batching: "continuous" },
    { name: "omnibus, static", batching: "static" },
    { name: "omnibus, static by prompt length", batching: "static", by: ({ prompt }) => prompt.length },
    { name: "omnibus, static by answer length", batching: "static", by: ({ maxTokens }) => maxTokens },
  ],
  transformers: [
    { name: "transformers, generate", batching: "static" },
    { name: "transformers, generate_batch", batching: "continuous" },
  ],
  "llama.cpp": [{ name: "llama.cpp", batching: "continuous" }],
};

/** How one of them did. */
interface Result extends Service {
  name: string;
  dtype: Contestant["dtype"];
  /** Of each round. */
  repeats: number[];
  /** The share of the requests whose answers are the reference's. */
  sameAnswers: number;
  steps?: Steps;
}

/** Those who take requests of different lengths. */
export const mixed: Workload = {
  peers: Object.keys(WAYS),
  repeats: 1,
  requests: 256,
  async bench(contestants, options) {
    const { where, repeats, vocabSize } = options, requests = makeRequests({ count: options.requests, vocabSize });
    const entrants = contestants.flatMap((peer) => WAYS[peer.name].map((way) => ({ ...peer, ...way })));
    const runs = await inTurns(
      entrants,
      [{ name: "mixed" }],
      options,
      async ({ generator, batching, by }, _, round) => {
        const asked = round ? requests : warmUp(requests);
        const order = [...asked.keys()].sort((a, b) => by ? by(asked[a]) - by(asked[b]) : 0);
        const served = await generator.serve!({ batching, seats: SEATS, requests: order.map((i) => asked[i]) });
        const place = order.map((_, i) => order.indexOf(i)), inOrder = <T>(list: T[]) => place.map((i) => list[i]);
        checkAnswers(asked, inOrder(served.tokens));
        return { ...served, seconds: inOrder(served.seconds), tokens: inOrder(served.tokens) };
      },
    );
    const reference = runs[Math.max(0, entrants.findIndex(({ dtype }) => dtype === "float32"))][0][1].tokens.map(
      String,
    );
    const results = entrants.map(({ name, dtype }, i): Result => {
      const rounds = runs[i][0].slice(1).map((served) => ({ ...measureService(requests, served, SEATS), served }));
      const byRate = rounds.toSorted((a, b) => a.throughput - b.throughput), { served, ...service } = middle(byRate);
      return {
        ...{ name, dtype, ...service, repeats: rounds.map(({ throughput }) => throughput) },
        sameAnswers: sameShare(served, reference),
        steps: served.steps && measureSteps(served.steps, SEATS),
      };
    });
    const subtitle = `${where.model}; ${requests.length} requests, ${SEATS} seats; ${where.machine}`;
    return {
      text: [`${subtitle}; ${repeats > 1 ? `the middle one of ${repeats} rounds` : "one round"}`, ...tables(results)]
        .join("\n\n"),
      result: { seats: SEATS, requests: requests.length, repeats, results },
      chart: chartOf(results, subtitle),
    };
  },
};

/** Enough for a peer to have made what it makes once: a tenth of the work, with batches of all sorts. */
function warmUp(requests: readonly Asked[]): Asked[] {
  return requests.slice(0, 3 * SEATS).map((request) => ({ ...request, maxTokens: Math.ceil(request.maxTokens / 4) }));
}

function checkAnswers(requests: readonly Asked[], tokens: readonly number[][]): void {
  const wrong = requests.findIndex(({ maxTokens }, i) => tokens[i]?.length !== maxTokens);
  if (wrong < 0 && tokens.length === requests.length) return;
  const { maxTokens } = requests[wrong];
  throw new Error(`it made ${tokens[wrong]?.length ?? "no"} tokens for request ${wrong}, which asked for ${maxTokens}`);
}

function sameShare({ tokens }: Served, reference: readonly string[]): number {
  return tokens.filter((answer, i) => String(answer) === reference[i]).length / tokens.length;
}

function middle<T>(sorted: readonly T[]): T {
  return sorted[(sorted.length - 1) >> 1];
}

function tables(results: readonly Result[]): string[] {
  return byDtype(results).map(([dtype, group]) => {
    const rows = group.map((one) => [
      one.name,
      one.throughput.toFixed(1),
      times(group[0].throughput / one.throughput),
      percent(one.occupancy),
      ...serviceCells(one),
      percent(one.sameAnswers),
    ]);
    const headings = ["", "tok/s", `${group[0].name} / this`, "occupancy", ...SERVICE_HEADINGS, "same answers"];
    const steps = group.flatMap(({ name, steps }) => steps ? [`${name}: ${inWords(steps)}`] : []);
    return [dtype, table([headings, ...rows]), ...steps].join("\n\n");
  });
}

/** What an engine's steps were, in a sentence. */
export function inWords({ overhead, decoding, fullSeconds }: Steps): string {
  return `${percent(decoding)} of the seats decoded while anybody waited for one; ${
    percent(overhead)
  } of the time passed ` +
    `between steps; a step of a full batch that only decodes took ${milliseconds(fullSeconds)}.`;
}

/** What {@link serviceCells} are. */
export const SERVICE_HEADINGS = ["TTFT p50, p90, p99", "TPOT p50, p90, p99", "longest gap", "good requests/s", "good"];

/** How requests were served, as cells of a table. */
export function serviceCells({ ttft, tpot, longestGap, goodput, goodShare }: Service): string[] {
  return [
    [ttft.p50, ttft.p90, ttft.p99].map((value) => value.toFixed(2)).join(", ") + " s",
    [tpot.p50, tpot.p90, tpot.p99].map((value) => (1000 * value).toFixed(0)).join(", ") + " ms",
    milliseconds(longestGap),
    goodput.toFixed(2),
    percent(goodShare),
  ];
}

function milliseconds(seconds: number): string {
  return `${(1000 * seconds).toFixed(0)} ms`;
}

function chartOf(results: readonly Result[], subtitle: string): Chart {
  return stackCharts(
    ...byDtype(results).map(([dtype, group]) => {
      const { throughput } = group[0], rival = group.find(({ name }) => name !== group[0].name);
      const finding = rival
        ? `${group[0].name} makes ${times(throughput / rival.throughput)} the tokens of ${rival.name}`
        : `${formatNumber(throughput)} tokens per second`;
      return barChart(group.map(({ name, throughput }) => ({ name, value: throughput })), {
        ...{ title: `${dtype}: ${finding}`, subtitle, quantity: "Useful tokens", unit: "tok/s" },
      });
    }),
  );
}
