/** Server-sent events (HTML standard, section 9.2) to one reader, who may be slow or go away. */

/** How a stream treats its reader. */
export interface EventStreamOptions {
  /** How long a reader may take nothing while there is something to take. */
  idleMilliseconds: number;
  /** Hears once that the reader went away or was too slow. */
  onGone: (reason: Error) => void;
  /** When aborted, a slow reader is not waited for any more, however little he takes at a time. */
  signal?: AbortSignal;
}

/** What may be unread before the sender has to wait. */
const MOST_UNREAD_BYTES = 64 * 1024;

const encoder = new TextEncoder();

/** Sends events. */
export class EventStream {
  /** What the reader gets. */
  readonly body: ReadableStream<Uint8Array>;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #room?: PromiseWithResolvers<void>;
  #gone?: Error;
  #closed = false;

  constructor(private readonly options: EventStreamOptions) {
    this.body = new ReadableStream<Uint8Array>({
      start: (controller) => void (this.#controller = controller),
      pull: () => this.#room?.resolve(),
      cancel: () => this.#leave(new DOMException("The client went away.", "AbortError")),
    }, new ByteLengthQueuingStrategy({ highWaterMark: MOST_UNREAD_BYTES }));
  }

  /** Whether the reader has so much to take that a sender should wait. */
  get full(): boolean {
    return this.#controller.desiredSize! <= 0;
  }

  /**
   * Sends an event. Where the reader is slow, what comes back can be waited for; it rejects if he is too slow, or gone, or the
   * signal aborts.
   */
  send(data: string, event?: string): void | Promise<void> {
    if (this.#gone) throw this.#gone;
    this.#controller.enqueue(encoder.encode(`${event ? `event: ${event}\n` : ""}data: ${data}\n\n`));
    if (this.full) return (this.#room ??= this.#newRoom()).promise;
  }

  /** Ends the stream. */
  close(): void {
    if (this.#gone || this.#closed) return;
    this.#closed = true;
    this.#controller.close();
  }

  #newRoom(): PromiseWithResolvers<void> {
    const room = Promise.withResolvers<void>(), { signal } = this.options, stop = () => room.reject(signal!.reason);
    signal?.addEventListener("abort", stop);
    const timer = setTimeout(() => {
      const slow = new DOMException("The client did not read what was sent.", "AbortError");
      this.#controller.error(slow);
      this.#leave(slow);
    }, this.options.idleMilliseconds);
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      this.#room = undefined;
    };
    room.promise.then(done, done); // so that nobody has to wait for it
    if (signal?.aborted) stop();
    return room;
  }

  #leave(reason: Error): void {
    if (this.#gone || this.#closed) return;
    this.#gone = reason;
    this.#room?.reject(reason);
    this.options.onGone(reason);
  }
}
