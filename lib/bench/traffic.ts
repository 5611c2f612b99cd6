/** Requests of different lengths, how their answers felt to those who waited for them, and how full the batch was. */

import { median, quantile } from "../util/median.ts";
import { seededNormal, seededRandom } from "../util/random.ts";
import type { StepRecord } from "../engine/timeline.ts";
import type { Asked, Served } from "./peers/protocol.ts";

/** What requests look like. */
export interface TrafficOptions {
  /** How many. */
  count: number;
  /** Token ids are below this. */
  vocabSize: number;
  /** Makes lengths, tokens and arrivals. Default 0. */
  seed?: number;
  /** Requests a second: they come at random, as a Poisson process does. Default: all at once. */
  rate?: number;
}

/**
 * Requests whose lengths are log-normal, as those of people are: prompts of 24 and answers of 40 tokens in the median, σ 0.8, both
 * from 1 to 200. The same seed gives the same requests at any rate.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { makeRequests } from "./traffic.ts";
 *
 * const requests = makeRequests({ count: 100, vocabSize: 50257, rate: 10 });
 * assert.ok(requests.every(({ prompt, maxTokens }) => prompt.length <= 200 && maxTokens >= 1));
 * assert.ok(requests[99].arrivalSeconds > 5);
 * ```
 */
export function makeRequests({ count, vocabSize, seed = 0, rate = Infinity }: TrafficOptions): Asked[] {
  const normal = seededNormal(seed), token = seededRandom(seed + 1), gap = seededRandom(seed + 2);
  const length = (median: number) => Math.min(200, Math.max(1, Math.round(median * Math.exp(0.8 * normal()))));
  let arrivalSeconds = 0;
  return Array.from({ length: count }, () => {
    const prompt = Array.from({ length: length(24) }, () => Math.floor(token() * vocabSize)), maxTokens = length(40);
    arrivalSeconds -= Math.log(1 - gap()) / rate;
    return { prompt, maxTokens, arrivalSeconds };
  });
}

/** Quantiles, in seconds. */
export interface Quantiles {
  p50: number;
  p90: number;
  p99: number;
}

/** How some traffic was served. */
export interface Service {
  /** From the first arrival to the last token. */
  totalSeconds: number;
  /** Tokens that somebody asked for, a second. */
  throughput: number;
  /** From a request's arrival to its first token. */
  ttft: Quantiles;
  /** Seconds from one token of a request to the next, its mean; of requests with two tokens or more. */
  tpot: Quantiles;
  /** The longest that anybody waited for a next token. */
  longestGap: number;
  /** Requests a second, and their share, that had their first token within a second and 100 ms a token from then on. */
  goodput: number;
  goodShare: number;
  /** Which share of the seats' time went to requests between their first token and their last, while others waited for their first. */
  occupancy: number;
}

/** What requests must get to count as {@link Service.goodput}: seconds. */
export const GOOD = { ttft: 1, tpot: 0.1 } as const;

/** Measures how requests were served by so many seats. */
export function measureService(requests: readonly Asked[], { seconds }: Served, seats: number): Service {
  const begin = Math.min(...requests.map(({ arrivalSeconds }) => arrivalSeconds));
  const end = Math.max(...seconds.map((times) => times.at(-1)!)), totalSeconds = end - begin;
  const ttft = seconds.map(([first], i) => first - requests[i].arrivalSeconds);
  const tpot = seconds.map((times) => times.length > 1 ? (times.at(-1)! - times[0]) / (times.length - 1) : 0);
  const good = requests.filter((_, i) => ttft[i] <= GOOD.ttft && tpot[i] <= GOOD.tpot).length;
  return {
    totalSeconds,
    throughput: seconds.reduce((sum, { length }) => sum + length, 0) / totalSeconds,
    ttft: quantiles(ttft),
    tpot: quantiles(tpot.filter((_, i) => seconds[i].length > 1)),
    longestGap: longestGap(seconds),
    goodput: good / totalSeconds,
    goodShare: good / requests.length,
    occupancy: occupancy(seconds, begin, seats),
  };
}

/** The longest time between two tokens of one request. */
export function longestGap(seconds: readonly (readonly number[])[]): number {
  return Math.max(
    0,
    ...seconds.map((times) => times.reduce((most, at, i) => Math.max(most, at - times[i - 1] || 0), 0)),
  );
}

/** All that is measured here ends when the last request to be seated has its first token: until then somebody waited. */
function occupancy(seconds: readonly (readonly number[])[], begin: number, seats: number): number {
  const full = Math.max(...seconds.map(([first]) => first));
  const busy = seconds.reduce((sum, times) => sum + Math.min(times.at(-1)!, full) - times[0], 0);
  return busy / seats / (full - begin);
}

function quantiles(values: readonly number[]): Quantiles {
  return { p50: quantile(values, 0.5), p90: quantile(values, 0.9), p99: quantile(values, 0.99) };
}

/** What the steps of an engine were like that always had somebody to serve. */
export interface Steps {
  /** The share of the time that passed between steps. */
  overhead: number;
  /** The share of the seats that decoded, the mean over the steps in which somebody waited for one. */
  decoding: number;
  /** Seconds from one step to the next where every seat decoded in both. */
  fullSeconds: number;
}

/** Measures the steps of an engine with so many seats. */
export function measureSteps(steps: readonly StepRecord[], seats: number): Steps {
  const decoding = steps.map(({ rows }) => rows.filter(({ phase }) => phase === "decode").length);
  const crowded = decoding.filter((_, i) => steps[i].waiting > 0),
    full = steps.flatMap(({ startMs }, i) =>
      decoding[i] === seats && decoding[i + 1] === seats ? [(steps[i + 1].startMs - startMs) / 1000] : []
    );
  const ran = steps.reduce((sum, { runMs }) => sum + runMs, 0), last = steps.at(-1)!;
  return {
    overhead: 1 - ran / (last.startMs + last.scheduleMs + last.runMs + last.collectMs - steps[0].startMs),
    decoding: crowded.reduce((sum, count) => sum + count, 0) / crowded.length / seats,
    fullSeconds: median(full),
  };
}
