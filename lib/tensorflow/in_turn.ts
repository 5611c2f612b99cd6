/**
 * Steps that follow each other on the processor without the host in between. A step alone ends with its threads asleep: the host
 * hears of it, reads the ids, and starts the next one, for a millisecond in which nothing is computed.
 */

import * as tf from "@tensorflow/tfjs";
import type { Threads } from "./capi/context.ts";
import type { Captured } from "./tfjs/backend.ts";

/** Runs a captured step as `CapturedStep.chain` says. */
export async function stepsInTurn(
  step: Captured,
  inputs: readonly tf.Tensor[],
  moving: readonly number[],
  count: number,
  threads: Threads,
): Promise<ArrayLike<number>[]> {
  const first = moving.map((place) => inputs[place].dataSync<"int32">()), made: tf.Tensor[] = [];
  function* inputsOf(): Generator<readonly tf.Tensor[]> {
    yield inputs;
    for (let i = 1; i < count; i++) {
      const own = [...inputs];
      moving.forEach((place, m) => made.push(own[place] = tf.tensor1d(first[m].map((x) => x + i), "int32")));
      yield own;
    }
  }
  try {
    const outputs = (await step.runInTurn(inputsOf(), { threads })).flat();
    const ids = outputs.map((output) => output.dataSync<"int32">());
    tf.dispose(outputs);
    return ids;
  } finally {
    tf.dispose(made);
  }
}
