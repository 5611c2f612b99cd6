/** What the routes of a server share: the engine once it is there, who is being served, and the limits. */

import type { Engine } from "../engine/engine.ts";
import type { ServedModel } from "../openai/completion_request.ts";
import { ApiError } from "../openai/error.ts";
import type { Access } from "./access.ts";
import { type BodyLimits, readJson } from "./body.ts";
import { Metrics } from "./metrics.ts";

/** A model that is ready to answer. */
export interface Loaded {
  /** Answers; the caller's. */
  engine: Engine;
  /** What clients know of it. */
  model: ServedModel;
}

/** What a server allows its clients. */
export interface ServiceLimits {
  /** A request's body. */
  body: BodyLimits;
  /** The longest that a request may take, its wait in the queue included. */
  requestMilliseconds: number;
  /** The longest that a reader may take nothing of what waits for him. */
  idleMilliseconds: number;
}

/** One line of the log: what was asked and what it took, but none of its text. */
export interface LogEntry {
  /** When it came, as ISO 8601. */
  time: string;
  /** The completion's, as the client knows it. */
  id?: string;
  /** HTTP's. */
  method: string;
  /** Without its query. */
  path: string;
  /** HTTP's; 499 if the client went away. */
  status: number;
  /** Until the end of the answer. */
  seconds: number;
  /** What went wrong, as a word. */
  error?: string;
  /** Whether the answer was streamed. */
  stream?: boolean;
  /** How many were asked for. */
  answers?: number;
  /** Of all prompts. */
  promptTokens?: number;
  /** Of all answers. */
  completionTokens?: number;
  /** Until the first token of any answer. */
  firstTokenSeconds?: number;
}

/** The most that may follow the timeline at once. */
const MOST_FOLLOWERS = 16;
/** When who was refused for lack of room may try again. */
export const RETRY_SECONDS = 1;

/** What is done for one request. */
export interface Work extends Disposable {
  /** Ends it. */
  readonly signal: AbortSignal;
  /** To be called when its client goes away. */
  readonly leave: () => void;
  /** Reads the request's body. Rejects as {@link readJson}, and as the signal says if it was aborted meanwhile. */
  readonly body: () => Promise<unknown>;
}

/** The state of a server. */
export class Service {
  readonly metrics = new Metrics();
  /** When it was made, in seconds since 1970. */
  readonly created = Math.floor(Date.now() / 1000);
  /** Set while it takes requests. */
  #loaded?: Loaded;
  #draining = false;
  #underWay = 0;
  #logFailed = false;
  readonly #failed = Promise.withResolvers<string>();
  /** Resolves with the reason when the engine has failed. */
  readonly failed = this.#failed.promise;
  readonly #followers = new Set<() => void>();

  constructor(
    readonly access: Access,
    readonly limits: ServiceLimits,
    private readonly write: (entry: LogEntry) => void,
  ) {}

  /** Takes requests from now on. */
  open(loaded: Loaded): void {
    this.#loaded = loaded;
    this.metrics.watch(loaded.engine);
  }

  /** Takes no more requests. */
  close(): void {
    this.#draining = true;
  }

  /** The model, to be asked. Throws an {@link ApiError} of status 503 while there is none, and when the end has begun. */
  get loaded(): Loaded {
    if (this.#draining) throw unavailable("The server is shutting down. Ask another one.", "shutting_down");
    if (!this.#loaded) throw unavailable("The model is being loaded. Try again soon.", "loading");
    if (this.#loaded.engine.closed) throw unavailable("The server failed and must be started again.", "failed");
    return this.#loaded;
  }

  /**
   * Counts a request with a body as work that is under way until it is disposed of, which ends what is left of it; it also
   * ends with its client, and after the time that a request may take. Throws an {@link ApiError} of status 429 if there is
   * too much.
   */
  begin(request: Request): Work {
    const { maxBatch, maxQueue } = this.loaded.engine.limits, most = maxBatch + maxQueue;
    if (this.#underWay >= most) {
      throw new ApiError(429, `Cannot take the request: ${most} are under way. Try again later.`, {
        code: "queue_full",
      });
    }
    this.#underWay++;
    const work = new AbortController(), milliseconds = this.limits.requestMilliseconds;
    const leave = () => work.abort(new DOMException("The client went away.", "AbortError"));
    const late = () =>
      work.abort(new ApiError(503, `The request took more than ${milliseconds / 1000} s.`, { code: "timeout" }));
    const timer = setTimeout(late, milliseconds);
    request.signal.addEventListener("abort", leave);
    const end = () => {
      clearTimeout(timer);
      request.signal.removeEventListener("abort", leave);
      work.abort();
      this.#underWay--;
    };
    const body = async () => {
      const read = await readJson(request, this.limits.body);
      work.signal.throwIfAborted();
      return read;
    };
    return { signal: work.signal, leave, body, [Symbol.dispose]: end };
  }

  /** Counts somebody who follows the timeline; `end` is called when the server ends. Throws as {@link Service.begin}. */
  follow(end: () => void): Disposable {
    if (this.#followers.size >= MOST_FOLLOWERS) {
      throw new ApiError(429, `Cannot show the timeline: ${MOST_FOLLOWERS} are watching it. Try again later.`);
    }
    this.#followers.add(end);
    return { [Symbol.dispose]: () => void this.#followers.delete(end) };
  }

  /** Ends the streams of who follows the timeline. */
  dismissFollowers(): void {
    for (const end of [...this.#followers]) end();
  }

  /** Notes a request that was answered. */
  note(entry: LogEntry, route: string): void {
    this.metrics.request(route, entry.status);
    const closed = this.#loaded?.engine.closed; // an engine fails in a request, which is noted
    if (closed && !this.#draining) this.#failed.resolve(closed);
    const probe = entry.status === 200 && (route === "/health" || route === "/metrics");
    if (probe) return;
    try {
      this.write(entry);
    } catch (error) { // such as a full disk: clients get their answers all the same
      if (!this.#logFailed) console.error(`Requests are not logged any more: ${(error as Error).message}`);
      this.#logFailed = true;
    }
  }
}

function unavailable(message: string, code: string): ApiError {
  return new ApiError(503, message, { code });
}
