/** What an engine did: the last steps, with their rows, durations and reasons. Always on: a few small objects a step. */

/** A row in a step. */
export interface StepRow {
  /** Counts an engine's requests, from 0. */
  request: number;
  /** Counts seats, from 0. */
  seat: number;
  /** A chunk of prompt (after a preemption, of prompt and answer), or the last token of an answer. */
  phase: "prefill" | "decode";
  /** How many tokens were fed. */
  tokens: number;
  /** Whether a token of its answer came of it. */
  answered: boolean;
}

/** Why a request got or lost its seat. */
export interface StepEvent {
  /** Counts an engine's requests, from 0. */
  request: number;
  /** The seat. */
  seat: number;
  /** It got the seat, lost it for want of memory, or has done with it. */
  what: "admitted" | "preempted" | "ended" | "cancelled" | "failed";
  /** Tokens of an admitted request that another row's cache already held. */
  reused?: number;
}

/** A step. */
export interface StepRecord {
  /** Counts steps, from 0. */
  step: number;
  /** When it was begun, by `performance.now()`. */
  startMs: number;
  /** What it took to choose the rows. */
  scheduleMs: number;
  /** To run the model. */
  runMs: number;
  /** To take in the tokens. */
  collectMs: number;
  /** The rows that were fed. */
  rows: StepRow[];
  /** Who got or lost a seat. */
  events: StepEvent[];
  /** Requests left in the queue. */
  waiting: number;
  /** What the KV cache took during the step. */
  kvCacheBytes: number;
}

/** An event as browsers' and Perfetto's viewers open it (Trace Event Format, Google 2016); times in microseconds. */
export interface TraceEvent {
  /** What the viewer shows. */
  name: string;
  /** `X` lasts, `i` is a moment, `C` a number that changes, `M` names a thread. */
  ph: "X" | "i" | "C" | "M";
  /** The process: one for an engine. */
  pid: number;
  /** The thread: a seat. */
  tid: number;
  /** When it began. */
  ts: number;
  /** How long it lasted. */
  dur?: number;
  /** That a moment belongs to its thread. */
  s?: "t";
  /** What the viewer shows besides. */
  args?: Record<string, unknown>;
}

/** The last steps of an engine. */
export class Timeline {
  #records: StepRecord[] = [];
  #count = 0;
  readonly #listeners = new Set<(record: StepRecord) => void>();

  /** Keeps so many steps; older ones are forgotten. */
  constructor(readonly size = 4096) {}

  /** Steps there were, with those that are forgotten. */
  get count(): number {
    return this.#count;
  }

  /** Adds a step, and gives it its number. */
  add(record: Omit<StepRecord, "step">): void {
    const numbered = { ...record, step: this.#count };
    this.#records[this.#count++ % this.size] = numbered;
    for (const listener of this.#listeners) listener(numbered);
  }

  /** Tells each step from now on as it is added. The listener must not throw. To dispose of what comes back ends it. */
  listen(listener: (record: StepRecord) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** The steps, from the oldest that is known. */
  get steps(): StepRecord[] {
    const first = this.#count % this.size;
    return this.#count <= this.size ? [...this.#records] : [
      ...this.#records.slice(first),
      ...this.#records.slice(0, first),
    ];
  }

  /** For `JSON.stringify`. */
  toJSON(): { steps: StepRecord[] } {
    return { steps: this.steps };
  }

  /** A thread for the engine, one for each seat. `JSON.stringify({ traceEvents })` is what the viewers open. */
  toTraceEvents(): TraceEvent[] {
    const lasting = (name: string, tid: number, startMs: number, ms: number, args = {}): TraceEvent => ({
      ...{ name, ph: "X", pid: 1, tid, ts: 1000 * startMs, dur: 1000 * ms, args },
    });
    const events = this.steps.flatMap((record): TraceEvent[] => {
      const { step, startMs, scheduleMs, runMs, collectMs, waiting, kvCacheBytes } = record;
      const runStart = startMs + scheduleMs, at = { pid: 1, ts: 1000 * startMs };
      return [
        lasting("schedule", 0, startMs, scheduleMs, { step }),
        lasting("step", 0, runStart, runMs, { step, rows: record.rows.length }),
        lasting("collect", 0, runStart + runMs, collectMs, { step }),
        ...record.rows.map(({ request, seat, phase, tokens }) =>
          lasting(`${phase} ${request}`, seat + 1, runStart, runMs, { request, tokens, step })
        ),
        ...record.events.map(({ seat, what, ...args }): TraceEvent => ({
          ...at,
          name: `${what} ${args.request}`,
          ph: "i",
          s: "t",
          tid: seat + 1,
          args,
        })),
        { ...at, name: "waiting", ph: "C", tid: 0, args: { requests: waiting } },
        { ...at, name: "KV cache", ph: "C", tid: 0, args: { bytes: kvCacheBytes } },
      ];
    });
    const threads = [...new Set(events.map(({ tid }) => tid))].sort((a, b) => a - b);
    const names = threads.map((tid): TraceEvent => ({
      ...{ name: "thread_name", ph: "M", pid: 1, tid, ts: 0, args: { name: tid ? `seat ${tid - 1}` : "engine" } },
    }));
    return [...names, ...events];
  }
}
