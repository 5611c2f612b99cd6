/**
 * Four workers, and the thread that starts them, use libtensorflow at the same time: each worker fits a line to points.
 * Prints the slopes that they found.
 */

import * as tf from "@tensorflow/tfjs";
import { TensorflowBackend } from "../../lib/tensorflow/tfjs/backend.ts";
import { ensureLibtensorflow } from "../../lib/tensorflow/install/install.ts";

const backend = new TensorflowBackend(await ensureLibtensorflow(), { intraOp: 1, interOp: 1 });
await tf.setBackend("tensorflow");

if (!import.meta.url.endsWith("?worker")) {
  const slopes = await Promise.all([1, 2, 3, 4].map(async (slope) => {
    const worker = new Worker(`${import.meta.url}?worker`, { type: "module" });
    const found = new Promise<number>((resolve, reject) => {
      worker.onmessage = ({ data }) => data === "ready" ? worker.postMessage(slope) : resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
    });
    await fit(slope);
    return await found.finally(() => worker.terminate());
  }));
  console.log(JSON.stringify(slopes));
} else {
  addEventListener("message", async (event) => postMessage(await fit((event as MessageEvent<number>).data)));
  postMessage("ready");
}

/** The slope of a line through points on a line of that slope, by gradient descent and then by a captured function. */
async function fit(slope: number): Promise<number> {
  const x = tf.linspace(-1, 1, 64), y = tf.mul(x, slope), weight = tf.variable(tf.scalar(0));
  const optimizer = tf.train.sgd(0.5);
  for (let i = 0; i < 200; i++) optimizer.minimize(() => tf.losses.meanSquaredError(y, tf.mul(x, weight)));
  const captured = backend.capture([x], ([x]) => [tf.mul(x, weight)]);
  const [line] = await captured.run([x]);
  return line.dataSync()[63];
}

declare function postMessage(message: unknown): void; // to whom started this worker
