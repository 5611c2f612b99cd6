/**
 * Who rides: chooses the rows of each step. Rows that decode are in every step; what the budget leaves goes to prompts,
 * the oldest first; then requests are admitted from the queue. Where memory runs short, the newest row gives way.
 */

import type { GPT2 } from "../gpt2/model.ts";
import type { Job } from "./job.ts";
import { KvCache } from "./kv_cache.ts";
import type { Policy } from "./policy.ts";
import type { StepEvent } from "./timeline.ts";

/** What may not be exceeded. */
export interface Limits {
  /** Rows that are under way. */
  readonly maxBatch: number;
  /** Tokens of a step; `maxBatch` at least. */
  readonly stepTokens: number;
  /** What the KV cache takes. */
  readonly kvCacheBytes: number;
}

/** Tokens of one request for a step. */
export interface Share {
  readonly job: Job;
  readonly count: number;
}

/** Memory is kept free for so many tokens more of each row when a new one is admitted: a block of slots. */
const AHEAD = 16;

/** To copy a row pays from so many tokens on. */
const WORTH_COPYING = 8;

/** The queue, the seats, the budget and the memory of one engine. */
export class Scheduler {
  /** Those without a seat, who is next first. */
  readonly queue: Job[] = [];
  /** Those with a seat. */
  readonly seated: Job[] = [];
  /** What happened and was not yet recorded. */
  readonly events: StepEvent[] = [];
  /** Ended requests whose rows are kept for prompts that begin like them, until their place is needed; the oldest first. */
  readonly #ended: Job[] = [];
  /** There was a preemption, and nobody has left since: who is admitted now would be the next to give way. */
  #short = false;

  constructor(
    private readonly model: GPT2,
    readonly cache: KvCache,
    private readonly limits: Limits,
    private readonly policy: Policy,
  ) {}

  /** What a row of so many tokens takes alone. */
  rowBytes(tokens: number): number {
    const { cachePolicy: { slotsFor, roomFor } } = this.model.backend;
    return KvCache.bytes(this.model.config, roomFor?.(1) ?? 1, slotsFor(tokens), this.model.cachedBytes);
  }

  /** Puts a request into the queue. */
  add(job: Job): void {
    const place = this.queue.findIndex((other) => this.policy(job, other) < 0);
    this.queue.splice(place < 0 ? this.queue.length : place, 0, job);
  }

  /** Takes a request out of the queue. If it has a seat instead, the next step is without it. */
  remove(job: Job): void {
    const place = this.queue.indexOf(job);
    if (place >= 0) this.queue.splice(place, 1);
  }

  /** Who is fed how many tokens in the next step, or undefined if nobody wants any. Who has ended leaves before it. */
  schedule(): readonly Share[] | undefined {
    for (const job of this.seated.filter(({ outcome }) => outcome)) this.#leave(job);
    this.cache.setPhase(this.seated.filter(({ pending }) => pending === 1).map(({ row }) => row!), "decode");
    let budget = this.limits.stepTokens;
    const shares: Share[] = [];
    const give = (job: Job) => {
      const count = Math.min(job.pending, budget);
      budget -= count;
      if (count) shares.push({ job, count });
    };
    const byAge = this.seated.toSorted((a, b) => a.arrival - b.arrival);
    for (const job of byAge) if (job.pending === 1) give(job);
    for (const job of byAge) if (job.pending > 1) give(job);
    for (let job; budget > 0 && (job = this.#admit());) give(job);
    this.cache.setPhase(this.#ended.map(({ row }) => row!), "ended"); // those whose place nobody has taken by now
    this.#makeRows();
    const fed = this.#fit(shares);
    return fed.length ? fed : undefined;
  }

  /** Gives a seat to the next in the queue, if seats and memory allow. */
  #admit(): Job | undefined {
    const { maxBatch } = this.limits, ended = this.#ended, job = this.queue.find(({ waits }) => !waits);
    if (!job || this.#short || this.seated.length >= maxBatch) return;
    const [source, reused] = this.#sourceFor(job), taken = ended.indexOf(source!);
    if (taken >= 0) ended.splice(taken, 1); // nobody else is going to write to its row: no need for a copy
    while (ended.length && (this.seated.length + ended.length >= maxBatch || !this.#fits(job))) this.#forget();
    if (!this.#fits(job)) {
      if (taken >= 0) ended.push(source!);
      return;
    }
    this.remove(job);
    if (source) {
      const phase = job.length - reused === 1 ? "decode" : "prefill";
      job.row = taken >= 0 ? source.row! : this.cache.fork(source.row!, reused, phase);
      this.cache.rewind(job.row, reused);
      this.cache.setPhase([job.row], phase);
    }
    job.seat = 0;
    while (this.seated.some(({ seat }) => seat === job.seat)) job.seat++;
    this.seated.push(job);
    this.#note(job, "admitted", reused);
    return job;
  }

  /** Whose row begins like a request, and how many tokens of it. */
  #sourceFor(job: Job): [Job | undefined, number] {
    let best: Job | undefined, most = WORTH_COPYING - 1;
    for (const other of [...this.#ended, ...this.seated]) {
      const shared = job.sharedWith(other);
      if (shared > most) [best, most] = [other, shared];
    }
    return best ? [best, most] : [undefined, 0];
  }

  /** Whether memory allows one more row, and what those who are under way are going to need soon. */
  #fits(job: Job): boolean {
    if (this.seated.length + this.#ended.length === 0) return true;
    const { kvCacheBytes } = this.limits;
    const soon = [...this.seated, job].reduce((sum, { length }) => sum + this.rowBytes(length + AHEAD), 0);
    const now = () => [...this.#rowless, job].reduce((sum, one) => sum + this.rowBytes(one.length), this.cache.bytes);
    if (soon <= kvCacheBytes && now() > kvCacheBytes) this.cache.trim();
    return Math.max(soon, now()) <= kvCacheBytes;
  }

  get #rowless(): Job[] {
    return this.seated.filter(({ row }) => !row);
  }

  /** Makes rows for those who were admitted and share none: all at once, so that similar ones lie together. */
  #makeRows(): void {
    const jobs = this.#rowless, whole = this.#reservesAnswers();
    const slots = jobs.map(({ length, request }) => whole ? request.mostFed : length);
    const rows = this.cache.admit({ slots, phase: "prefill" });
    for (const [i, job] of jobs.entries()) job.row = rows[i];
  }

  /** Rows need not grow where empty slots cost no time, and memory would hold as many slots for all as the longest may need. */
  #reservesAnswers(): boolean {
    if (!this.model.backend.cachePolicy.emptySlotsAreFree) return false;
    const longest = Math.max(0, ...this.seated.map(({ request }) => request.mostFed));
    return this.seated.length * this.rowBytes(longest) <= this.limits.kvCacheBytes;
  }

  /** Makes room for a step. Where memory does not allow it, rows go: those of ended requests, then the newest. */
  #fit(shares: readonly Share[]): readonly Share[] {
    let fed = shares;
    this.cache.reserve(fed.map(({ job }) => job.row!), fed.map(({ count }) => count));
    while (this.#exceeds()) {
      if (this.#ended.length) this.#forget();
      else if (this.seated.length > 1) {
        const newest = this.seated.reduce((a, b) => a.arrival > b.arrival ? a : b);
        this.#preempt(newest);
        fed = fed.filter(({ job }) => job !== newest);
      } else break;
    }
    return fed;
  }

  #exceeds(): boolean {
    const { kvCacheBytes } = this.limits;
    if (this.cache.bytes > kvCacheBytes) this.cache.trim();
    return this.cache.bytes > kvCacheBytes;
  }

  /** It goes back to the head of the queue. Its text so far is its own, and is fed again. */
  #preempt(job: Job): void {
    this.#note(job, "preempted");
    this.#unseat(job);
    this.cache.release(job.row!);
    job.row = undefined;
    this.queue.unshift(job);
    this.#short = true;
  }

  #leave(job: Job): void {
    this.#note(job, job.outcome!);
    this.#unseat(job);
    this.#short = false;
    if (job.outcome !== "failed" && job.row!.length >= WORTH_COPYING) this.#ended.push(job);
    else this.cache.release(job.row!);
  }

  #unseat(job: Job): void {
    this.seated.splice(this.seated.indexOf(job), 1);
    job.seat = undefined;
  }

  /** Frees the row of the request that ended longest ago. */
  #forget(): void {
    this.cache.release(this.#ended.shift()!.row!);
  }

  #note({ arrival, seat }: Job, what: StepEvent["what"], reused = 0): void {
    this.events.push({ request: arrival, seat: seat!, what, ...reused && { reused } });
  }
}
