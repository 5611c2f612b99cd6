/** The workloads of the bench, on stand-ins whose times are known, and on the small model. */

import assert from "node:assert/strict";
import { arrivals } from "../lib/bench/peers/arrivals.ts";
import { CANDIDATES, startCandidate } from "../lib/bench/peers/catalog.ts";
import type { BenchOptions } from "../lib/bench/peers/findings.ts";
import { mixed } from "../lib/bench/peers/mixed.ts";
import type { Served, Traffic } from "../lib/bench/peers/protocol.ts";
import type { Contestant } from "../lib/bench/peers/rounds.ts";
import { longestGap, makeRequests, measureService, measureSteps } from "../lib/bench/traffic.ts";
import type { StepRecord } from "../lib/engine/timeline.ts";
import { median, quantile } from "../lib/util/median.ts";

Deno.test("lengths are log-normal with the medians that they should have, and the same at any rate of arrivals", () => {
  const requests = makeRequests({ count: 4000, vocabSize: 50257 });
  for (
    const [lengths, middle] of [
      [requests.map(({ prompt }) => prompt.length), 24],
      [requests.map(({ maxTokens }) => maxTokens), 40],
    ] as const
  ) {
    assert.ok(Math.abs(median(lengths) / middle - 1) < 0.06, `${median(lengths)} for ${middle}`);
    const logs = lengths.map(Math.log), spread = (quantile(logs, 0.841) - quantile(logs, 0.159)) / 2;
    assert.ok(Math.abs(spread - 0.8) < 0.06, `${spread}`);
    assert.ok(Math.min(...lengths) >= 1 && Math.max(...lengths) === 200);
  }
  assert.ok(requests.every(({ arrivalSeconds }) => arrivalSeconds === 0));
  const timed = makeRequests({ count: 4000, vocabSize: 50257, rate: 20 });
  assert.deepEqual(timed.map(({ prompt }) => prompt), requests.map(({ prompt }) => prompt));
  const gaps = timed.map(({ arrivalSeconds }, i) => arrivalSeconds - (timed[i - 1]?.arrivalSeconds ?? 0));
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
  assert.ok(Math.abs(20 * mean - 1) < 0.05, `${mean}`);
  assert.ok(Math.abs(gaps.filter((gap) => gap > mean).length / gaps.length - Math.exp(-1)) < 0.03, "exponential");
});

const request = (arrivalSeconds: number) => ({ prompt: [1], maxTokens: 3, arrivalSeconds });

Deno.test("service is measured from each arrival to each token, and seats count while somebody waits", () => {
  const requests = [request(1), request(1), request(2)];
  const service = measureService(requests, { seconds: [[2, 2.05, 2.1], [2, 3, 4], [4, 4.5, 5]], tokens: [] }, 2);
  assert.equal(service.totalSeconds, 4);
  assert.equal(service.throughput, 9 / 4);
  assert.deepEqual([service.ttft.p50, service.ttft.p99], [1, quantile([1, 1, 2], 0.99)]);
  assert.equal(service.tpot.p50, 0.5);
  assert.equal(service.longestGap, 1);
  assert.deepEqual([service.goodput, service.goodShare], [1 / 4, 1 / 3], "the second is slow, the third late");
  assert.ok(Math.abs(service.occupancy - (0.1 + 2) / 2 / 3) < 1e-12, "both seats, from 1 to 4");
  assert.equal(longestGap([[7]]), 0);
});

/** A step of so many decoding rows. */
const step = (startMs: number, decoding: number, waiting: number): StepRecord => ({
  ...{ step: 0, startMs, scheduleMs: 1, runMs: 8, collectMs: 1, events: [], waiting, kvCacheBytes: 0 },
  rows: Array.from(
    { length: decoding },
    (_, seat) => ({ request: seat, seat, phase: "decode", tokens: 1, answered: true }),
  ),
});

Deno.test("steps give the time between them, the seats that decode, and what a full step takes", () => {
  const steps = [step(0, 2, 1), step(10, 4, 1), step(22, 4, 0), step(32, 1, 0)];
  assert.deepEqual(measureSteps(steps, 4), { overhead: 1 - 32 / 42, decoding: 6 / 2 / 4, fullSeconds: 0.012 });
});

/** Answers token after token, one a second for each seat: at once those that come together. */
function standIn(log: Traffic[]): Contestant["generator"] {
  return {
    generate: () => Promise.reject(new Error("not asked")),
    logits: () => Promise.reject(new Error("not asked")),
    serve(traffic: Traffic): Promise<Served> {
      log.push(traffic);
      const { requests, batching } = traffic, longest = Math.max(...requests.map(({ maxTokens }) => maxTokens));
      const begin = (i: number) => batching === "static" ? Math.floor(i / traffic.seats) * longest : 0;
      return Promise.resolve({
        seconds: requests.map(({ maxTokens, arrivalSeconds }, i) =>
          Array.from({ length: maxTokens }, (_, t) => begin(i) + arrivalSeconds + t + 1)
        ),
        tokens: requests.map(({ prompt, maxTokens }) => Array(maxTokens).fill(prompt[0])),
        ...batching === "continuous" && { steps: [step(0, 32, 1), step(10, 32, 1), step(20, 32, 0)] },
      });
    },
  };
}

const OPTIONS: BenchOptions = {
  where: { model: "a model", machine: "a machine" },
  ...{ batchSizes: [], maxTokens: 0, repeats: 2, requests: 70, vocabSize: 1000, pauseSeconds: 0 },
};

Deno.test("mixed gives everybody the same requests, static ones in three orders, and puts the answers back in order", async () => {
  const log: Traffic[] = [];
  const contestants = [{ name: "omnibus", dtype: "float32" as const, generator: standIn(log) }];
  const { text, result, chart } = await mixed.bench(contestants, OPTIONS);
  assert.equal(log.length, 4 * 3, "four ways, one round that does not count and two that do");
  const round = log.slice(4, 8),
    lengths = (of: "prompt" | "answer") =>
      round.map(({ requests }) => requests.map(({ prompt, maxTokens }) => of === "prompt" ? prompt.length : maxTokens));
  const rising = (numbers: readonly number[]) => numbers.every((number, i) => i === 0 || number >= numbers[i - 1]);
  const sets = lengths("prompt").map((list) => list.toSorted((a, b) => a - b).join());
  assert.equal(new Set(sets).size, 1);
  assert.deepEqual(lengths("prompt").filter(rising).length, 1);
  assert.deepEqual(lengths("answer").filter(rising).length, 1);
  assert.deepEqual(round.map(({ batching }) => batching).sort(), ["continuous", "static", "static", "static"]);
  const { results } = result as { results: { name: string; sameAnswers: number; throughput: number }[] };
  assert.deepEqual(results.map(({ sameAnswers }) => sameAnswers), [1, 1, 1, 1]);
  assert.ok(results[0].throughput > results[1].throughput);
  assert.match(text, /omnibus, static by prompt length/);
  assert.match(chart.description, /float32: omnibus makes [\d.]+x the tokens of omnibus, static/);

  const cutting = standIn([]), serve = cutting.serve!;
  cutting.serve = async (traffic) => {
    const served = await serve(traffic);
    return { ...served, tokens: served.tokens.map((tokens) => tokens.slice(1)) };
  };
  await assert.rejects(
    mixed.bench([{ name: "omnibus", dtype: "float32", generator: cutting }], OPTIONS),
    /omnibus(, static)? float32 failed at mixed \(it made \d+ tokens for request 0, which asked for \d+\)/,
  );
});

Deno.test("arrivals come at shares of what was served at once, once more with a long prompt that is not counted", async () => {
  const log: Traffic[] = [];
  const { text, result } = await arrivals.bench([
    { name: "omnibus", dtype: "float32", generator: standIn(log) },
  ], OPTIONS);
  const { results: [{ capacity, points, disturbed }] } = result as {
    results: { capacity: number; points: { load: number; longestGap: number }[]; disturbed: { longestGap: number } }[];
  };
  assert.deepEqual(points.map(({ load }) => load), [0.3, 0.5, 0.7, 0.8, 0.9, 0.95]);
  const rates = log.slice(2, 8).map(({ requests }) => requests.length / requests.at(-1)!.arrivalSeconds);
  assert.ok(rates.every((rate, i) => Math.abs(rate / rates[0] - points[i].load / 0.3) < 1e-9), `${rates}`);
  const all = log[1].requests;
  assert.equal(capacity, all.length / Math.max(...all.map(({ maxTokens }) => maxTokens)));
  const [long, ...others] = log[8].requests;
  assert.deepEqual([long.prompt.length, others.length], [900, 70]);
  assert.ok(others.some(({ arrivalSeconds }) => arrivalSeconds < long.arrivalSeconds));
  assert.ok(Math.abs(disturbed.longestGap - 1) < 1e-9);
  assert.match(text, /80% and 900 tokens/);
});

Deno.test("Omnibus answers requests in static batches as its engine does, each when it has come", async () => {
  const [omnibus] = CANDIDATES, requests = makeRequests({ count: 12, vocabSize: 1000, rate: 100 });
  const short = requests.map((one) => ({ ...one, maxTokens: 1 + one.maxTokens % 9 }));
  await using peer = await startCandidate(omnibus, {
    model: "models/small",
    cache: "",
    dtype: "float32",
    threads: 1,
    backend: "auto",
  });
  const all = await peer.serve({ batching: "static", seats: 5, requests: short });
  const each = await peer.serve({ batching: "continuous", seats: 5, requests: short });
  assert.deepEqual(each.tokens, all.tokens);
  assert.deepEqual(all.tokens.map(({ length }) => length), short.map(({ maxTokens }) => maxTokens));
  assert.equal(new Set(all.seconds.map(([first]) => first)).size, 3, "batches of 5, 5 and 2");
  for (const [i, times] of each.seconds.entries()) {
    assert.ok(times[0] >= short[i].arrivalSeconds && times.length === short[i].maxTokens);
    assert.ok(times.every((at, k) => k === 0 || at >= times[k - 1]));
  }
  assert.ok(each.steps!.length >= 5);
});
