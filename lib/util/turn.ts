/** Turns of the event loop, for work that would otherwise keep it waiting. */

/**
 * Lets the event loop do what is due: timers, signals, aborts. Takes some 30 µs, unlike a timer of 0 ms, which takes one or more
 * milliseconds.
 */
export function nextTurn(): Promise<void> {
  if (typeof setImmediate === "function") return new Promise((resolve) => setImmediate(resolve));
  return new Promise((resolve) => { // a browser
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
