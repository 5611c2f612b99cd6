/** Trying again after what may pass, less and less often. */

import { HubError, Interruption } from "./error.ts";

/** How to try again. */
export interface RetryOptions {
  /** Called with one line that says why and when. Default: stderr. */
  log?: (line: string) => void;
  /** Waits for so many seconds; tests do not. */
  wait?: (seconds: number) => Promise<void>;
}

/** Failures in a row, without a byte gained, that are enough. */
const MAX_FAILURES = 5;

/** The longest wait that a server may ask for. */
const MAX_WAIT_SECONDS = 300;

/**
 * Runs `attempt` until it succeeds or throws something else than an {@link Interruption}; waits 1, 2, 4 and 8 seconds in
 * between, or what the server asks for. `progress` is a number that grows when an attempt gained something: then the
 * count of failures starts again.
 */
export async function retry<T>(
  attempt: () => Promise<T>,
  { log = console.error, wait = sleep, progress = () => 0 }: RetryOptions & { progress?: () => number } = {},
): Promise<T> {
  for (let failures = 1, before = progress();; failures++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Interruption)) throw error;
      if (progress() > before) failures = 1;
      before = progress();
      const seconds = Math.ceil(error.retryAfterSeconds ?? 2 ** (failures - 1));
      if (seconds > MAX_WAIT_SECONDS) {
        throw new HubError(`${error.message} and asks to wait ${seconds} seconds. Try later`);
      }
      if (failures === MAX_FAILURES) {
        throw new HubError(`${error.message}, ${failures} times in a row. Try again later`);
      }
      log(`Trying again in ${seconds} s: ${error.message}.`);
      await wait(seconds);
    }
  }
}

function sleep(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
