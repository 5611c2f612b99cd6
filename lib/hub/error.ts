/** What goes wrong between here and a model hub. */

/** A model cannot be had. The message says why and what to do; it never holds the token, nor a signed address. */
export class HubError extends Error {
  /** Tells it from other errors. */
  override name = "HubError";
}

/** A request failed in a way that may pass: the same one may succeed later. */
export class Interruption extends Error {
  /** Tells it from other errors. */
  override name = "Interruption";

  /** What happened, as a clause, and for how many seconds the server asks to be left alone. */
  constructor(message: string, readonly retryAfterSeconds?: number) {
    super(message);
  }
}
