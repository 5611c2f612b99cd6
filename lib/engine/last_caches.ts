/** The caches that a model's rows were in last, kept for the next ones. */

import type { Caches } from "../backend/ops.ts";
import type { GPT2 } from "../gpt2/model.ts";

/** Those of one bucket, by group of heads. */
interface Kept {
  rows: number;
  slots: number;
  caches: Caches[];
}

/**
 * Caches of the last bucket that was given up, at most. The next one of their size takes them as they are: no row sees a slot that it
 * did not write.
 *
 * @internal
 */
export class LastCaches {
  static readonly #ofModels = new WeakMap<GPT2, LastCaches>();
  #kept?: Kept;
  #ended = false;

  /** Those of a model, with which they end. */
  static of(model: GPT2): LastCaches {
    let last = LastCaches.#ofModels.get(model);
    if (!last) {
      LastCaches.#ofModels.set(model, last = new LastCaches());
      model.own(last);
    }
    return last;
  }

  /** Caches for so many rows of so many slots, if they are here. Others are freed: their memory may be needed. */
  take(rows: number, slots: number): Caches[] | undefined {
    const kept = this.#kept;
    if (kept?.rows !== rows || kept.slots !== slots) return this.#free();
    this.#kept = undefined;
    return kept.caches;
  }

  /** Takes over a bucket's caches. */
  give(kept: Kept): void {
    this.#free();
    this.#kept = kept;
    if (this.#ended) this.#free();
  }

  /** Frees them, and whatever comes later. */
  dispose(): void {
    this.#ended = true;
    this.#free();
  }

  #free(): undefined {
    for (const caches of this.#kept?.caches ?? []) caches.dispose();
    this.#kept = undefined;
  }
}
