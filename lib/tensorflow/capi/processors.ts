/** The processors that TensorFlow computes on. */

import { readText } from "../../util/proc.ts";

/** Bytes of a `cpu_set_t`: a bit for each of 1,024 processors. */
const SET_BYTES = 128;

/**
 * Makes a pool of threads by `make`, and keeps each on a processor of its own, if they are as many as the process may use. Linux
 * may else wake several on the same one after a pause, where they take turns for ten to twenty milliseconds until it notices:
 * longer than a decode step takes. Other systems have no such thing, and there it only makes the pool.
 */
export function spreadOverProcessors<T>(threads: number, make: () => T): T {
  if (Deno.build.os !== "linux" || threads === 1 || threads !== navigator.hardwareConcurrency) return make();
  const before = computingThreads(), made = make();
  const pool = computingThreads().filter((thread) => !before.includes(thread));
  const libc = Deno.dlopen("libc.so.6", {
    sched_getaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
    sched_setaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  });
  try {
    const all = new Uint8Array(SET_BYTES), self = 0, size = BigInt(SET_BYTES);
    libc.symbols.sched_getaffinity(self, size, all);
    const processors = Array.from({ length: 8 * SET_BYTES }, (_, i) => i).filter((i) => all[i >> 3] >> (i & 7) & 1);
    if (pool.length !== processors.length) return made;
    for (const [i, processor] of processors.entries()) {
      const one = new Uint8Array(SET_BYTES);
      one[processor >> 3] = 1 << (processor & 7);
      libc.symbols.sched_setaffinity(pool[i], size, one); // should it fail, the thread goes on as others do
    }
    return made;
  } finally {
    libc.close();
  }
}

/** Whether the processors have AMX, with which oneDNN multiplies int8 and bfloat16 numbers. Known on Linux only. */
export function hasAmx(): boolean {
  return readText("/proc/cpuinfo")?.includes(" amx_int8 ") ?? false;
}

/** Whether they are AMD's. Known on Linux only. */
export function isAmd(): boolean {
  return readText("/proc/cpuinfo")?.includes("AuthenticAMD") ?? false;
}

/** The threads of this process on which operations run, by Linux's numbers. */
function computingThreads(): number[] {
  const tasks = "/proc/self/task";
  if (readText("/proc/self/comm") === undefined) return []; // it may not be read
  const threads = [...Deno.readDirSync(tasks)].map(({ name }) => name);
  return threads.filter((thread) => readText(`${tasks}/${thread}/comm`) === "tf_Compute\n").map(Number);
}
