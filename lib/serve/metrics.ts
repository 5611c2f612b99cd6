/** What a server tells Prometheus. */

import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Engine } from "../engine/engine.ts";
import type { Answering } from "../engine/job.ts";
import type { StepRecord } from "../engine/timeline.ts";

/** Seconds, from a fast step on a GPU to a long wait in a queue. */
const WAITS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120];
const STEPS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

/** Counts what an engine does and what its answers took. */
export class Metrics {
  readonly #register = new Registry();
  readonly #requests = this.#counter("requests_total", "Requests by path and status.", ["path", "status"]);
  readonly #promptTokens = this.#counter("prompt_tokens_total", "Tokens of prompts that were fed to the model.");
  readonly #answerTokens = this.#counter("generation_tokens_total", "Tokens of answers that were generated.");
  readonly #steps = this.#counter("steps_total", "Steps of the model.");
  readonly #preemptions = this.#counter("preemptions_total", "Requests that lost their seat for lack of memory.");
  readonly #admitted = this.#counter("admissions_total", "Requests that got a seat.");
  readonly #prefixHits = this.#counter("prefix_hits_total", "Of these, who found the keys and values of a beginning.");
  readonly #prefixTokens = this.#counter("prefix_hit_tokens_total", "Tokens that were not fed because of that.");
  readonly #ttft = this.#histogram("time_to_first_token_seconds", "From the request to its first token.", WAITS);
  readonly #tpot = this.#histogram("time_per_output_token_seconds", "Of each answer, after its first token.", STEPS);
  readonly #duration = this.#histogram("request_duration_seconds", "Until the answer was complete.", WAITS);

  constructor() {
    collectDefaultMetrics({ register: this.#register });
  }

  /** Counts what an engine does from now on. */
  watch(engine: Engine): Disposable {
    this.#gauge("seats", "The most requests at once.", () => engine.limits.maxBatch);
    this.#gauge("seats_taken", "Requests that are under way.", () => engine.seated);
    this.#gauge("queue_length", "Requests that wait for a seat.", () => engine.waiting);
    this.#gauge("queue_limit", "The most that may wait.", () => engine.limits.maxQueue);
    this.#gauge("kv_cache_bytes", "What the KV cache takes.", () => engine.kvCacheBytes);
    this.#gauge("kv_cache_limit_bytes", "What it may take.", () => engine.limits.kvCacheBytes);
    return engine.timeline.listen((step) => this.#step(step));
  }

  /** Counts a request. `path` is one of few: not what a client wrote. */
  request(path: string, status: number): void {
    this.#requests.inc({ path, status });
  }

  /** Notes what an answer took that is complete. */
  answered({ times: { asked, firstToken, lastToken }, answer: { tokens } }: Answering): void {
    if (firstToken === undefined || lastToken === undefined) return;
    this.#ttft.observe((firstToken - asked) / 1000);
    if (tokens.length > 1) this.#tpot.observe((lastToken - firstToken) / 1000 / (tokens.length - 1));
    this.#duration.observe((lastToken - asked) / 1000);
  }

  /** The text for Prometheus, and its type. */
  async text(): Promise<{ text: string; type: string }> {
    return { text: await this.#register.metrics(), type: this.#register.contentType };
  }

  #step({ rows, events }: StepRecord): void {
    if (rows.length) this.#steps.inc();
    let prompt = 0, answered = 0;
    for (const row of rows) {
      if (row.phase === "prefill") prompt += row.tokens;
      if (row.answered) answered++;
    }
    this.#promptTokens.inc(prompt);
    this.#answerTokens.inc(answered);
    for (const { what, reused = 0 } of events) {
      if (what === "preempted") this.#preemptions.inc();
      if (what !== "admitted") continue;
      this.#admitted.inc();
      if (reused) this.#prefixHits.inc();
      this.#prefixTokens.inc(reused);
    }
  }

  #counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name: `omnibus_${name}`, help, labelNames, registers: [this.#register] });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name: `omnibus_${name}`, help, buckets, registers: [this.#register] });
  }

  #gauge(name: string, help: string, value: () => number): void {
    const collect = () => gauge.set(value());
    const gauge: Gauge = new Gauge({ name: `omnibus_${name}`, help, collect, registers: [this.#register] });
  }
}
