/** The workload `arrivals`: requests come when they come, at a share of what the engine can take. Omnibus alone. */

import { lineChart, stackCharts } from "../../chart.ts";
import { table } from "../../util/table.ts";
import { makeRequests, measureService, measureSteps, type Quantiles, type Service } from "../traffic.ts";
import { percent } from "./compare.ts";
import type { Workload } from "./findings.ts";
import { inWords, SEATS, SERVICE_HEADINGS, serviceCells } from "./mixed.ts";
import type { Asked } from "./protocol.ts";
import { times } from "./report.ts";
import { type Contestant } from "./rounds.ts";

const LOADS = [0.3, 0.5, 0.7, 0.8, 0.9, 0.95];

/** The load at which a long prompt comes along, in the middle. */
const DISTURBED = 0.8, LONG_PROMPT = 900;

/** What was measured at one load. */
interface Point extends Service {
  /** A share of the capacity. */
  load: number;
}

/** Omnibus's own. */
export const arrivals: Workload = {
  peers: ["omnibus"],
  repeats: 1,
  requests: 300,
  async bench(contestants, options) {
    const { where, onProgress } = options, total = contestants.length * (LOADS.length + 2);
    const texts: string[] = [], results: Record<string, unknown>[] = [], charts = [];
    let done = 0;
    for (const { dtype, generator } of contestants) {
      const serve = async (requests: readonly Asked[], what: string) => {
        onProgress?.(done++, total, `${dtype}, ${what}`);
        return await generator.serve!({ batching: "continuous", seats: SEATS, requests });
      };
      const requestsAt = (rate?: number) =>
        makeRequests({ count: options.requests, vocabSize: options.vocabSize, rate });
      await generator.serve!({ batching: "continuous", seats: SEATS, requests: requestsAt().slice(0, SEATS) });
      const saturated = await serve(requestsAt(), "all at once");
      const steps = measureSteps(saturated.steps!, SEATS);
      const capacity = options.requests / measureService(requestsAt(), saturated, SEATS).totalSeconds;
      const points: Point[] = [];
      for (const load of LOADS) {
        const requests = requestsAt(load * capacity), served = await serve(requests, `at ${percent(load)}`);
        points.push({ load, ...measureService(requests, served, SEATS) });
      }
      const requests = withLongPrompt(requestsAt(DISTURBED * capacity));
      const { seconds } = await serve(requests, `at ${percent(DISTURBED)} with a long prompt`);
      const disturbed = measureService(requests.slice(1), { seconds: seconds.slice(1), tokens: [] }, SEATS);

      const before = points.find(({ load }) => load === DISTURBED)!.longestGap;
      const row = (name: string, service: Service) => [name, service.throughput.toFixed(1), ...serviceCells(service)];
      const rows = [
        ...points.map((point) => row(percent(point.load), point)),
        row(`${percent(DISTURBED)} and ${LONG_PROMPT} tokens`, disturbed),
      ];
      texts.push(
        `${dtype}: all at once it answers ${capacity.toFixed(2)} requests a second. ${inWords(steps)}`,
        table([["load", "tok/s", ...SERVICE_HEADINGS], ...rows]),
        `With the prompt of ${LONG_PROMPT} tokens the others' longest gap is ${
          times(disturbed.longestGap / before)
        } what it is without.`,
      );
      results.push({ dtype, capacity, steps, points, disturbed });
      charts.push(chartOf(points, dtype, "first token", "s", ({ ttft }) => ttft));
      charts.push(chartOf(points, dtype, "next token", "ms", ({ tpot }) => times1000(tpot)));
    }
    onProgress?.(total, total, "");
    const subtitle = `${where.model}, ${options.requests} requests a load, ${SEATS} seats; ${where.machine}`;
    return {
      text: [subtitle, ...texts].join("\n\n"),
      result: { seats: SEATS, results },
      chart: stackCharts(...charts),
    };
  },
};

/** One more request, the first, that comes in the middle. */
function withLongPrompt(requests: readonly Asked[]): Asked[] {
  const { arrivalSeconds } = requests[requests.length >> 1];
  return [{ prompt: Array.from({ length: LONG_PROMPT }, (_, i) => i), maxTokens: 10, arrivalSeconds }, ...requests];
}

function chartOf(
  points: readonly Point[],
  dtype: Contestant["dtype"],
  what: string,
  unit: string,
  quantiles: (point: Point) => Quantiles,
) {
  const line = (name: keyof Quantiles) => ({
    name,
    points: points.map((point) => ({ x: 100 * point.load, y: quantiles(point)[name] })),
  });
  return lineChart([line("p50"), line("p90"), line("p99")], {
    title: `${dtype}: waiting for a ${what}`,
    ...{ xTitle: "Load (% of capacity)", quantity: `Wait for a ${what}`, unit },
  });
}

function times1000({ p50, p90, p99 }: Quantiles): Quantiles {
  return { p50: 1000 * p50, p90: 1000 * p90, p99: 1000 * p99 };
}
