/** Work on many items at once, and not on too many. */

/**
 * Calls `map` on items as they come, with at most `limit` of them under way, and gives each result when it is there. A result
 * that nobody has taken yet counts as under way: who takes them slowly slows down the reading. If the items or `map` throw, so
 * does this, at once.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { mapAsEnded } from "./map_as_ended.ts";
 *
 * const wait = (ms: number) => new Promise<number>((resolve) => setTimeout(() => resolve(ms), ms));
 * assert.deepEqual(await Array.fromAsync(mapAsEnded([60, 1], 2, wait)), [1, 60]);
 * assert.deepEqual(await Array.fromAsync(mapAsEnded([60, 1], 1, wait)), [60, 1]);
 * ```
 */
export async function* mapAsEnded<T, R>(
  items: AsyncIterable<T> | Iterable<T>,
  limit: number,
  map: (item: T) => Promise<R>,
): AsyncGenerator<R, void> {
  const ended: R[] = [];
  let underWay = 0, exhausted = false, left = false, failure: { error: unknown } | undefined;
  let news = Promise.withResolvers<void>(), room = Promise.withResolvers<void>();
  const fail = (error: unknown) => void (failure ??= { error });
  const work = async (item: T) => {
    await map(item).then((result) => ended.push(result), fail);
    news.resolve();
  };
  const read = async () => {
    for await (const item of items) {
      if (left) return;
      underWay++;
      void work(item);
      while (underWay >= limit && !left) await room.promise;
    }
  };
  void read().catch(fail).finally(() => {
    exhausted = true;
    news.resolve();
  });
  try {
    for (;;) {
      for (const result of ended.splice(0)) {
        yield result;
        underWay--;
        room.resolve();
        room = Promise.withResolvers();
      }
      if (failure) throw failure.error;
      if (ended.length) continue;
      if (exhausted && underWay === 0) return;
      await news.promise;
      news = Promise.withResolvers();
    }
  } finally {
    left = true;
    room.resolve();
  }
}
