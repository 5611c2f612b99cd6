/** The garbage collector, on request. */

import v8 from "node:v8";
import vm from "node:vm";

/** Collects what nobody can reach, and lets its finalizers run. */
export async function collectGarbage(): Promise<void> {
  v8.setFlagsFromString("--expose-gc");
  const collect = vm.runInNewContext("gc") as () => void;
  for (let i = 0; i < 3; i++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 5)); // finalizers run as tasks of their own
  }
}
