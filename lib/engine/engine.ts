/**
 * Continuous batching: passengers get on and off at every stop. One loop runs the steps of all requests that are under way;
 * who comes is admitted to the next step, and who has ended leaves his seat to others.
 *
 * @example
 * ```ts
 * import { AutoModelForCausalLM, AutoTokenizer, Engine } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * await using engine = new Engine({ model, maxBatch: 8 });
 * const ask = (text: string) => engine.submit({ prompt: tokenizer.encode(text), maxTokens: 10, tokenizer });
 * const [first, second] = [ask("Call me"), ask("It is a truth universally")];
 * for await (const { text } of first.stream) console.log(text);
 * console.log((await second.result).text);
 * ```
 *
 * @module
 */

import type { Parallelism } from "../backend/types.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { realTokens } from "../tokenizer/batch.ts";
import { formatBytes } from "../util/format.ts";
import { interruptSignal } from "../util/interrupt.ts";
import { nextTurn } from "../util/turn.ts";
import { type Answering, type Chosen, Job } from "./job.ts";
import { KvCache } from "./kv_cache.ts";
import { checkContext, checkCount, checkMaxTokens } from "./limits.ts";
import { parallelismFor } from "./parallelism.ts";
import { firstCome, type Policy } from "./policy.ts";
import { type AnswerOptions, Request } from "./request.ts";
import { Runner, type StepOptions } from "./runner.ts";
import { randomSeed } from "./sampling.ts";
import { Scheduler, type Share } from "./scheduler.ts";
import { type StepRow, Timeline } from "./timeline.ts";
import { warmUp } from "./warm_up.ts";

/** What an engine is made with; it keeps it for its life. */
export interface EngineOptions {
  /** The caller's, who disposes it after the engine. */
  model: GPT2;
  /** The most requests that are under way at once. Default 32. */
  maxBatch?: number;
  /**
   * The most tokens of a step, `maxBatch` or more. Each row that decodes gets a token in every step, and prompts share the
   * rest: nobody's next token waits longer than for one step of so many tokens. Default: 64 more than `maxBatch`.
   */
  stepTokens?: number;
  /**
   * The most that the KV cache may take. Default: all rows at the model's context, or half of the memory that is free, also after
   * {@link Engine.warmUp}.
   */
  kvCacheBytes?: number;
  /** The most requests that wait for a seat. Default 1024. */
  maxQueue?: number;
  /** Who of those that wait is next. Default: who came first. */
  policy?: Policy;
  /** How to spread the rows over the processor. Default: as the model's plan says for `maxBatch`. */
  parallelism?: Parallelism;
  /** How many steps its timeline keeps. Default 4096. */
  timelineSteps?: number;
}

/**
 * So many tokens of prompts make a step of 32 rows take less than twice its time on a CPU; larger chunks would hardly make
 * prompts faster.
 */
const PROMPT_TOKENS = 64;

/** A request. */
export interface SubmitOptions extends AnswerOptions, StepOptions {
  /** Its tokens: one or more. */
  prompt: readonly number[];
  /** Also give the log-probability of each token of the prompt. */
  promptLogprobs?: boolean;
  /** For a policy that heeds it: the more, the earlier. Default 0. */
  priority?: number;
  /** Cancels the request; its result then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** Thrown where a request would have to wait in a queue that is full. */
export class QueueFull extends Error {
  /** The class's name. */
  override name = "QueueFull";
}

/** Thrown where a request alone would need more KV cache than the engine may take. */
export class TooLarge extends RangeError {
  /** The class's name. */
  override name = "TooLarge";
}

/**
 * Answers requests of many callers, with one model. Every request gets what it would get alone. Where a step throws, each of
 * its rows is tried alone, so that only the requests at fault fail; where the scheduler or the cache does, all of them fail,
 * and the engine takes no more.
 */
export class Engine implements AsyncDisposable {
  /** What the last steps were. */
  readonly timeline: Timeline;
  readonly #limits: Required<Pick<EngineOptions, "maxBatch" | "stepTokens" | "kvCacheBytes" | "maxQueue">>;
  readonly #kvCacheBytes: () => number;
  readonly #scheduler: Scheduler;
  readonly #cache: KvCache;
  readonly #model: GPT2;
  /** Until no request is left. */
  #running?: Promise<void>;
  /** Why it takes no more requests. */
  #closed?: string;
  #arrivals = 0;
  #stepped = Promise.withResolvers<void>();

  /** Throws a RangeError about an option that cannot be. Takes no memory before the first request. */
  constructor({ model, policy = firstCome, parallelism, timelineSteps = 4096, ...limits }: EngineOptions) {
    const { maxBatch = 32, stepTokens = maxBatch + PROMPT_TOKENS, maxQueue = 1024 } = limits,
      { config, backend } = model;
    checkCount("maxBatch", maxBatch);
    checkCount("stepTokens", stepTokens, maxBatch);
    checkCount("maxQueue", maxQueue);
    checkCount("timelineSteps", timelineSteps);
    const whole = KvCache.bytes(config, maxBatch, config.n_positions, model.cachedBytes);
    this.#kvCacheBytes = () =>
      limits.kvCacheBytes ?? Math.min(whole, Math.floor((backend.availableMemory() ?? Infinity) / 2));
    const kvCacheBytes = this.#kvCacheBytes();
    checkCount("kvCacheBytes", kvCacheBytes);
    this.#model = model;
    this.#limits = { maxBatch, stepTokens, kvCacheBytes, maxQueue };
    this.#cache = new KvCache(model, parallelismFor(model, maxBatch, parallelism));
    this.#scheduler = new Scheduler(model, this.#cache, this.#limits, policy);
    this.timeline = new Timeline(timelineSteps);
  }

  /** What it was made with, or takes by default. */
  get limits(): Readonly<Required<Pick<EngineOptions, "maxBatch" | "stepTokens" | "kvCacheBytes" | "maxQueue">>> {
    return this.#limits;
  }

  /** Requests that wait for a seat. */
  get waiting(): number {
    return this.#scheduler.queue.length;
  }

  /** Requests that have a seat. */
  get seated(): number {
    return this.#scheduler.seated.length;
  }

  /** Why it takes no more requests, if it does not. */
  get closed(): string | undefined {
    return this.#closed;
  }

  /** What the KV cache takes now. */
  get kvCacheBytes(): number {
    return this.#cache.bytes;
  }

  /**
   * Runs a step of each kind that requests are going to need, where libtensorflow captures them for a CPU; elsewhere it does
   * nothing. Without it, whoever is being answered when a kind comes for the first time waits for it: half a second with GPT-2
   * 124M in int8 on two cores. There all 12 take six seconds, and keep 2 GB of weights in the order that the processor likes best;
   * in float32 it is twice as much of both. The kinds with log-probabilities, which few ask for, are left until somebody does.
   */
  async warmUp(): Promise<void> {
    await warmUp(this.#model, this.limits, this.#cache.parallelism);
    this.#limits.kvCacheBytes = this.#kvCacheBytes(); // less is free now
  }

  /**
   * Takes a request. Throws a RangeError or TypeError if it can never be answered ({@link TooLarge} for lack of memory),
   * {@link QueueFull} if too many wait ({@link Engine.ready} waits until they do not), and an Error if the engine was stopped.
   */
  submit(options: SubmitOptions): Answering {
    return this.submitAll(options, 1)[0];
  }

  /** Takes a request for `n` answers, or none of them, whose prompt is fed once for all. They differ by their draws. */
  submitAll(options: SubmitOptions, n: number): Answering[] {
    checkCount("n", n);
    const requests = this.#requests(options, n), { queue } = this.#scheduler, { maxQueue } = this.limits;
    if (this.#closed) throw new Error(`Cannot take a request: ${this.#closed}. Make another engine.`);
    if (queue.length + n > maxQueue) {
      throw new QueueFull(
        `Cannot take ${n === 1 ? "a request" : `${n} requests`}: ${queue.length} wait, and maxQueue is ${maxQueue}. ` +
          "Try again later, or await ready().",
      );
    }
    const jobs: Job[] = [], onEnd = (job: Job) => this.#scheduler.remove(job);
    for (const request of requests) {
      const job = new Job(request, this.#arrivals++, { ...options, leader: jobs[0], onEnd });
      jobs.push(job);
      if (!job.outcome) this.#scheduler.add(job); // its signal may be aborted already
    }
    this.#running ??= this.#run();
    return jobs;
  }

  /** Resolves once so many more requests may wait. All who wait for it are woken: the first to submit may fill the queue again. */
  async ready(n = 1): Promise<void> {
    checkCount("n", n, 1, this.limits.maxQueue);
    while (!this.#closed && this.waiting + n > this.limits.maxQueue) await this.#stepped.promise;
  }

  /** Takes no more requests, and resolves when those that it has are answered. */
  async drain(): Promise<void> {
    this.#closed ??= "the engine was told to end";
    await this.#running;
  }

  /** Takes no more requests and cancels those that it has. */
  async stop(reason: unknown = new DOMException("The engine was stopped.", "AbortError")): Promise<void> {
    this.#closed ??= "the engine was stopped";
    this.#cancelAll(reason);
    await this.#running;
  }

  /** Stops it and frees its cache. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    this.#cache[Symbol.dispose]();
  }

  /** Runs until no request is left; every step is one trip for all rows that have a seat. */
  async #run(): Promise<void> {
    await nextTurn(); // who comes at the same time rides together
    const scheduler = this.#scheduler;
    try {
      let start = performance.now();
      for (let shares; (shares = scheduler.schedule()); start = performance.now()) {
        const rows = shares.map(rowOf), scheduled = performance.now();
        const chosen = await this.#step(shares), ran = performance.now();
        for (const [job, next] of chosen) job.take(next);
        this.#record(rows, [start, scheduled, ran, performance.now()]);
        await this.#turn();
      }
      if (scheduler.events.length) this.#record([], [start, ...Array(3).fill(performance.now())]); // the last to leave
    } catch (error) { // of the scheduler or the cache themselves: what they hold can no longer be trusted
      this.#closed = `it failed: ${(error as Error).message}`;
      for (const job of [...scheduler.seated, ...scheduler.queue]) job.fail(error);
    }
    this.#running = undefined;
    this.#tell();
  }

  /**
   * Feeds rows, and gives what was chosen for each. If that throws, the rows are as they were, and each is tried alone: who
   * fails then fails alone, with what it threw.
   */
  async #step(shares: readonly Share[]): Promise<[Job, Chosen[]][]> {
    const feeds = shares.map(({ job, count }) => job.feed(count)), jobs = shares.map(({ job }) => job);
    const options: StepOptions = {
      logprobs: jobs.some(({ options }) => options.logprobs || options.promptLogprobs),
      topLogprobs: Math.max(...jobs.map(({ options: { topLogprobs = 0 } }) => topLogprobs)),
    };
    try {
      const next = await Runner.of(this.#model).step(this.#cache, feeds, options);
      let at = 0;
      return feeds.map(({ wanted }, i) => [jobs[i], wanted.map((wanted) => ({ ...next[at++], wanted }))]);
    } catch (error) {
      if (shares.length > 1) return (await Array.fromAsync(shares, (share) => this.#step([share]))).flat();
      jobs[0].fail(error);
      return [];
    }
  }

  #record(rows: StepRow[], [start, scheduled, ran, collected]: number[]): void {
    this.timeline.add({
      startMs: start,
      scheduleMs: scheduled - start,
      runMs: ran - scheduled,
      collectMs: collected - ran,
      rows,
      events: this.#scheduler.events.splice(0),
      waiting: this.waiting,
      kvCacheBytes: this.kvCacheBytes,
    });
  }

  /** Between two steps: callers are heard, and the stop button of a notebook. */
  async #turn(): Promise<void> {
    const stop = interruptSignal();
    this.#tell();
    await nextTurn();
    if (stop.aborted) this.#cancelAll(stop.reason);
  }

  /** Wakes who waits for the queue. */
  #tell(): void {
    this.#stepped.resolve();
    this.#stepped = Promise.withResolvers();
  }

  #cancelAll(reason: unknown): void {
    for (const job of [...this.#scheduler.seated, ...this.#scheduler.queue]) job.cancel(reason);
  }

  /** What is asked for, checked. */
  #requests({ prompt, ...options }: SubmitOptions, n: number): Request[] {
    const { config } = this.#model, { kvCacheBytes } = this.limits;
    const [tokens] = realTokens({ inputIds: [[...prompt]], attentionMask: [prompt.map(() => 1)] }, {
      vocabSize: config.vocab_size,
    });
    checkCount("topLogprobs", options.topLogprobs ?? 0, 0, config.vocab_size);
    checkMaxTokens(options.maxTokens);
    checkContext(tokens.length, options.maxTokens, config.n_positions);
    const needed = this.#scheduler.rowBytes(tokens.length + options.maxTokens - 1); // the last is not fed
    if (needed > kvCacheBytes) {
      throw new TooLarge(
        `Cannot answer a prompt of ${tokens.length} tokens with up to ${options.maxTokens}: alone it may need ` +
          `${needed} bytes (${formatBytes(needed)}) of KV cache, and kvCacheBytes is ${kvCacheBytes}. Lower maxTokens.`,
      );
    }
    const own = { ...options, seed: options.seed ?? randomSeed() }; // one for all answers to a prompt
    return Array.from({ length: n }, (_, choice) => new Request(tokens, own, config, choice));
  }
}

/** A row for the timeline. */
function rowOf({ job, count }: Share): StepRow {
  const phase = count === 1 && job.pending === 1 && job.length > job.promptLength ? "decode" : "prefill";
  return { request: job.arrival, seat: job.seat!, phase, tokens: count, answered: count === job.pending };
}
