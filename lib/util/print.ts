/** Text to standard output and error, all of it. */

import { constants, openSync, writeSync } from "node:fs";

/** What POSIX promises to be written whole or not at all on a pipe. */
const ATOMIC_BYTES = 512;

/** What takes bytes, as many of them as it likes. */
type Writer = { writeSync(bytes: Uint8Array): number };

/**
 * Writes all of a text as it is. Where a pipe or a terminal is set not to block, as a program on its other side can do, it may
 * take nothing until somebody has read: then this waits. What nobody can read any more is lost, as with `console.log()`.
 */
export function print(text: string, stream: Writer = Deno.stdout): void {
  const bytes = new TextEncoder().encode(text), direct = directly(stream);
  for (let done = 0; done < bytes.length;) {
    try {
      done += direct.writeSync(bytes.subarray(done, done + ATOMIC_BYTES));
    } catch (error) {
      if (error instanceof Deno.errors.BrokenPipe) return;
      if (!(error instanceof Deno.errors.WouldBlock)) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

const opened = new Map<Writer, Writer>();

/**
 * A pipe or a terminal, opened once more: Deno's own stdout has a buffer, and does not say how much of what it refused is
 * in there. Files, which never refuse, keep the one place to write at that they have.
 */
function directly(stream: Writer): Writer {
  let direct = opened.get(stream);
  if (!direct) opened.set(stream, direct = reopened(stream) ?? stream);
  return direct;
}

function reopened(stream: Writer): Writer | undefined {
  const descriptor = [Deno.stdout, Deno.stderr].findIndex((one) => one === stream) + 1, path = `/dev/fd/${descriptor}`;
  if (descriptor === 0) return undefined;
  try {
    if (Deno.statSync(path).isFile) return undefined;
    const file = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK); // or else it would wait for a reader
    return { writeSync: (bytes) => writeSync(file, bytes) };
  } catch {
    return undefined; // on Windows, for a socket, and for a pipe that nobody reads any more
  }
}
