/** Work that callers share while it is under way. */

/**
 * The same work, but calls made while one with the same key runs get that one's result, good or bad, and their own
 * arguments are not looked at. When it has ended, the next call starts it again.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { singleFlight } from "./single_flight.ts";
 *
 * let runs = 0;
 * const next = singleFlight(() => Promise.resolve(++runs));
 * assert.deepEqual(await Promise.all([next(), next(), next()]), [1, 1, 1]);
 * assert.equal(await next(), 2);
 * ```
 */
export function singleFlight<A extends unknown[], R>(
  work: (...args: A) => Promise<R>,
  keyOf: (...args: A) => unknown = () => undefined,
): (...args: A) => Promise<R> {
  const flights = new Map<unknown, Promise<R>>();
  return (...args) => {
    const key = keyOf(...args);
    let flight = flights.get(key);
    if (!flight) {
      flight = work(...args).finally(() => flights.delete(key));
      flights.set(key, flight);
    }
    return flight;
  };
}
