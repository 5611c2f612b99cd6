/**
 * The stop button of a notebook. Jupyter sends SIGINT for it, which by itself would end Deno's kernel and all variables
 * with it. Here it ends what is going on instead: generation stops between two steps, and the next cell runs as ever.
 */

/** What stopped generation throws. */
export class Interrupted extends Error {
  /** The class's name. */
  override name = "Interrupted";

  /** Says that the reader did it. */
  constructor() {
    super("stopped by the stop button; variables and models are still there");
  }
}

/** Aborted and replaced at each interrupt. Nobody aborts it outside notebooks, where SIGINT ends the program. */
let current = new AbortController();

/**
 * A signal that the next interrupt of the notebook aborts, for loops of your own. All that generates heeds it anyway.
 * Outside notebooks nothing aborts it.
 *
 * @example
 * ```ts
 * import { interruptSignal } from "../mod.ts";
 *
 * const stop = interruptSignal(); // at the start of the cell
 * for (let i = 0; i < 3; i++) {
 *   stop.throwIfAborted();
 *   await new Promise((resolve) => setTimeout(resolve, 1)); // work that leaves the event loop room to hear of it
 * }
 * ```
 */
export function interruptSignal(): AbortSignal {
  return current.signal;
}

const inNotebook = isNotebook();
// At once, and not when generation begins: without a listener, the first interrupt ends the kernel.
if (inNotebook && Deno.build.os !== "windows") Deno.addSignalListener("SIGINT", interrupt);

function interrupt(): void {
  const interrupted = current;
  current = new AbortController(); // for what is begun after this
  interrupted.abort(new Interrupted());
}

/** Elsewhere even to ask for `Deno.jupyter` throws. */
function isNotebook(): boolean {
  try {
    return Boolean(Deno.jupyter);
  } catch {
    return false;
  }
}
