/** A request on its way through an engine: what was fed of it, and who is to hear of its tokens. */

import type { Row } from "./bucket.ts";
import type { Waiting } from "./policy.ts";
import type { Generated, Request } from "./request.ts";
import type { NextToken, StepOptions } from "./runner.ts";
import type { Feed, Wanted } from "./step_inputs.ts";

/** One more token of an answer. */
export interface Piece {
  /** The token. */
  token: number;
  /** The text that is certain with it, where there is a tokenizer; a stop text is no part of it. */
  text: string;
  /** The natural logarithm of its probability, if asked for. */
  logprob?: number;
  /** The most likely tokens, if asked for. */
  top?: { id: number; logprob: number }[];
}

/** An answer to come. */
export interface Answering {
  /** Its tokens as they come, from the first. To break off the loop cancels the request; a request that failed throws. */
  readonly stream: AsyncIterable<Piece>;
  /** The whole answer. Rejects if the request failed or was cancelled. */
  readonly result: Promise<Generated>;
  /** The answer as far as it is. What was asked about the prompt is in it by the first token. */
  readonly answer: Generated;
  /** Counts an engine's requests, from 0: its number in the timeline. */
  readonly arrival: number;
  /** When it was asked for, and its first and latest token came, by `performance.now()`. */
  readonly times: Readonly<AnswerTimes>;
  /** Ends the request at once, and frees its seat by the next step. Does nothing if it has ended. */
  cancel(reason?: unknown): void;
}

/** Moments of an answer, in milliseconds. */
export interface AnswerTimes {
  /** When it was asked for. */
  asked: number;
  /** When its first token came. */
  firstToken?: number;
  /** When its latest token came. */
  lastToken?: number;
}

/** A token, and what was wanted. */
export interface Chosen extends NextToken {
  wanted: Wanted;
}

/** What a job is to give besides tokens. */
export interface JobOptions extends StepOptions {
  promptLogprobs?: boolean;
  priority?: number;
  signal?: AbortSignal;
  /** An answer to the same prompt, for whose prefill this one waits. */
  leader?: Job;
  /** Hears that it ended, failed or was cancelled. */
  onEnd?: (job: Job) => void;
}

/** How a job ended. */
export type Outcome = "ended" | "cancelled" | "failed";

/** One request. What follows from its tokens is its own; row and seat are the scheduler's to give. */
export class Job implements Answering, Waiting {
  /** Holds the first tokens of its text. */
  row?: Row;
  /** Which seat it has. */
  seat?: number;
  /** Set when nothing more is to come. */
  outcome?: Outcome;
  readonly priority: number;
  readonly times: AnswerTimes = { asked: performance.now() };
  readonly #answer = Promise.withResolvers<Generated>();
  readonly #pieces: Piece[] = [];
  #news?: PromiseWithResolvers<void>;

  constructor(readonly request: Request, readonly arrival: number, readonly options: JobOptions = {}) {
    this.priority = options.priority ?? 0;
    if (options.promptLogprobs) {
      request.answer.promptLogprobs = [];
      if (options.topLogprobs) request.answer.promptTopLogprobs = [];
    }
    this.#answer.promise.catch(() => {}); // who only reads the stream hears it there
    options.signal?.addEventListener("abort", this.#abort);
    if (options.signal?.aborted) this.#abort();
  }

  get promptLength(): number {
    return this.request.prompt.length;
  }

  /** Tokens of prompt and answer. */
  get length(): number {
    return this.promptLength + this.request.answer.tokens.length;
  }

  /** How many of them are yet to be fed: one while it decodes. */
  get pending(): number {
    return this.length - (this.row?.length ?? 0);
  }

  /** Whether its first token waits for that of its leader, which is being computed from the same prompt. */
  get waits(): boolean {
    const { leader } = this.options;
    return leader?.seat !== undefined && !leader.outcome && leader.length === leader.promptLength;
  }

  /** How many tokens of the other's row it begins with; at least one of its own is left to be fed. */
  sharedWith({ row, request, length, promptLength }: Job): number {
    if (this.options.promptLogprobs || !row) return 0;
    const { prompt, answer } = this.request, most = Math.min(row.length, length, this.length - 1);
    const own = (i: number) => i < prompt.length ? prompt[i] : answer.tokens[i - prompt.length];
    let i = 0;
    while (i < most && own(i) === (i < promptLength ? request.prompt[i] : request.answer.tokens[i - promptLength])) i++;
    return i;
  }

  /** Feeds its next `count` tokens. */
  feed(count: number): Feed & { wanted: Wanted[] } {
    const { prompt, answer: { tokens: answered, promptLogprobs = [] }, sampled } = this.request;
    const row = this.row!, start = row.length, end = start + count, wanted: Wanted[] = [];
    const tokens = count === 1 && answered.length && end === this.length
      ? [this.request.lastToken]
      : [...prompt, ...answered].slice(start, end);
    if (this.options.promptLogprobs) { // those that are known from before a preemption are not wanted again
      for (let at = Math.max(start, promptLogprobs.length); at < Math.min(end, prompt.length - 1); at++) {
        wanted.push({ after: at - start, next: prompt[at + 1] });
      }
    }
    if (end === this.length) wanted.push({ after: count - 1, next: sampled });
    return { row, tokens, wanted };
  }

  /** Takes in what was wanted of it. */
  take(chosen: readonly Chosen[]): void {
    if (this.outcome) return;
    try {
      for (const one of chosen) this.#accept(one);
    } catch (error) { // of a tokenizer
      return this.fail(error);
    }
    if (this.request.ended) this.#end("ended");
    this.#tell();
  }

  #accept({ id, logprob, top, wanted }: Chosen): void {
    const { options: { logprobs, topLogprobs = 0 }, request } = this;
    if (typeof wanted.next === "number") {
      request.answer.promptLogprobs!.push(logprob!);
      request.answer.promptTopLogprobs?.push(top!.slice(0, topLogprobs));
      return;
    }
    this.times.lastToken = performance.now();
    this.times.firstToken ??= this.times.lastToken;
    const extras = { ...logprobs && { logprob }, ...topLogprobs > 0 && { top: top!.slice(0, topLogprobs) } };
    this.#pieces.push({ token: id, text: request.accept({ id, ...extras }), ...extras });
  }

  /** Ends it with an error. */
  fail(error: unknown): void {
    this.#end("failed", error);
  }

  cancel(reason: unknown = new DOMException("The request was cancelled.", "AbortError")): void {
    this.#end("cancelled", reason);
  }

  get result(): Promise<Generated> {
    return this.#answer.promise;
  }

  get answer(): Generated {
    return this.request.answer;
  }

  get stream(): AsyncIterable<Piece> {
    return { [Symbol.asyncIterator]: () => this.#read() };
  }

  async *#read(): AsyncGenerator<Piece, void> {
    try {
      for (let i = 0;; i++) {
        while (i === this.#pieces.length && !this.outcome) await (this.#news ??= Promise.withResolvers<void>()).promise;
        if (i === this.#pieces.length) break;
        yield this.#pieces[i];
      }
      await this.result;
    } finally {
      this.cancel();
    }
  }

  #end(outcome: Outcome, error?: unknown): void {
    if (this.outcome) return;
    this.outcome = outcome;
    if (outcome === "ended") this.#answer.resolve(this.request.answer);
    else this.#answer.reject(error);
    this.options.signal?.removeEventListener("abort", this.#abort);
    this.#tell();
    this.options.onEnd?.(this);
  }

  #tell(): void {
    this.#news?.resolve();
    this.#news = undefined;
  }

  readonly #abort = () => this.cancel(this.options.signal!.reason);
}
