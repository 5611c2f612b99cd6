/** When to free what several calls may be using. */

/**
 * From the making of a thing to its disposal. It is freed once: when its owner has disposed of it, however often, and the
 * calls that use it at that time have ended. Calls that come later are refused.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { Lifetime } from "./lifetime.ts";
 *
 * const lifetime = new Lifetime("the room", () => console.log("cleaned"));
 * {
 *   using _ = lifetime.use();
 *   lifetime.end(); // not yet
 * } // cleaned
 * assert.throws(() => lifetime.use(), /Cannot use the room: it was disposed of/);
 * ```
 */
export class Lifetime {
  #users = 0;
  #ended = false;

  /** Of `thing`, as errors call it; `free` frees it. */
  constructor(private readonly thing: string, private readonly free: () => void) {}

  /** Keeps the thing until what this returns is disposed of. Throws an Error if it was disposed of itself. */
  use(): Disposable {
    if (this.#ended) throw new Error(`Cannot use ${this.thing}: it was disposed of.`);
    this.#users++;
    return {
      [Symbol.dispose]: () => {
        if (--this.#users === 0 && this.#ended) this.free();
      },
    };
  }

  /** What disposing does. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#users === 0) this.free();
  }
}
