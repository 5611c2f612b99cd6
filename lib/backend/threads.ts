/** How many threads can be asked for. */

/** Throws a RangeError unless `threads` is a whole number from 1 to the machine's cores: more would wait for each other. */
export function checkThreads(threads: number): void {
  const cores = navigator.hardwareConcurrency;
  if (Number.isSafeInteger(threads) && threads >= 1 && threads <= cores) return;
  throw new RangeError(
    `Cannot run on ${threads} threads: it must be a whole number from 1 to ${cores}, the cores of this machine. ` +
      "Without one, all are used.",
  );
}
