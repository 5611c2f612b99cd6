/** Which of tfjs's backends operations run on: tfjs has one current one, and models may run on another. */

import * as tf from "@tensorflow/tfjs";

/**
 * Runs `work`, up to its first `await`, with operations going to a started backend, whichever is current before and after.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import * as tf from "@tensorflow/tfjs";
 * import { useBackend } from "../mod.ts";
 * import { onBackend } from "./current.ts";
 *
 * const cpu = await useBackend("cpu");
 * await useBackend("wasm");
 * assert.equal(onBackend(cpu, () => tf.getBackend()), "cpu");
 * assert.equal(tf.getBackend(), "wasm");
 * ```
 */
export function onBackend<R>({ name }: { readonly name: string }, work: () => R): R {
  const engine = tf.engine() as unknown as Current, { backendName, backendInstance } = engine;
  if (backendName === name) return work();
  // Not tf.setBackend(): it sets up all kernels of the backend again, which takes a millisecond, longer than a small step.
  engine.backendName = name;
  engine.backendInstance = engine.registry[name];
  try {
    return work();
  } finally {
    engine.backendName = backendName;
    engine.backendInstance = backendInstance;
  }
}

/** Where tfjs keeps which backend is current, and those that are started. */
interface Current {
  backendName: string;
  backendInstance: unknown;
  readonly registry: Readonly<Record<string, unknown>>;
}
