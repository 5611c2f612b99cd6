/** Specs that do not pass, and why. */

import { createRequire } from "node:module";

/** What tfjs-node itself leaves out of tfjs-core's specs: parts of their names, from its own test runner. */
export function ignoredByTfjsNode(): string[] {
  const runner = createRequire(import.meta.url).resolve("@tensorflow/tfjs-node-gpu/dist/run_tests.js");
  const list = Deno.readTextFileSync(runner).match(/IGNORE_LIST = (\[[^]*?\n\]);/)?.[1];
  if (!list) throw new Error(`Cannot find the list of ignored specs in ${runner}.`);
  return new Function(`return ${list}`)();
}

/** What we leave out besides, by full name: differences between the TensorFlow of then and of now. */
export const IGNORED: Record<string, string> = {
  "conv3d dilations CPU should throw error on dilations >1":
    "TensorFlow 2.21 computes this on CPUs; the spec wants the error of older versions",
};
