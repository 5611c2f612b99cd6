/** Eager contexts of libtensorflow: where operations run, on how many threads, on which device. */

import { cString, Status, type Symbols, text } from "./library.ts";
import { spreadOverProcessors } from "./processors.ts";
import { varint } from "./strings.ts";

/** How many threads TensorFlow may use. */
export interface Threads {
  /** Inside one operation. */
  intraOp: number;
  /** For operations, or calls of a function, side by side. */
  interOp: number;
}

/** A context; it lives until the process ends, because TensorFlow's threads do. */
export class Context {
  /** What the C functions take. */
  readonly pointer: Deno.PointerValue;
  /** The device that operations run on, by TensorFlow's name: the first GPU, else the CPU. */
  readonly device: string;
  /** Bytes that TensorFlow may take of that device's memory. */
  readonly memory: number;
  readonly #functions = new Set<string>();
  /** Makes the thread that starts an operation wait for it. */
  readonly #waiting: Deno.PointerValue;
  /** Do not, and are not in use. */
  readonly #queues: Deno.PointerValue[] = [];

  /** Makes a context with threads of its own. */
  constructor(private readonly c: Symbols, private readonly status: Status, threads: Threads) {
    const options = c.TFE_NewContextOptions();
    const config = new Uint8Array([...threadsConfig(threads), ...GROWING_MEMORY]);
    try {
      c.TFE_ContextOptionsSetConfig(options, config, BigInt(config.length), status.pointer);
      status.check();
      this.pointer = spreadOverProcessors(threads.interOp, () => c.TFE_NewContext(options, status.pointer));
      status.check();
    } finally {
      c.TFE_DeleteContextOptions(options);
    }
    this.#waiting = c.TFE_ContextGetExecutorForThread(this.pointer);
    ({ name: this.device, memory: this.memory } = this.#bestDevice());
  }

  /** Makes a function known here, once. */
  add(name: string, fn: Deno.PointerValue): void {
    if (this.#functions.has(name)) return;
    this.c.TFE_ContextAddFunction(this.pointer, fn, this.status.pointer);
    this.status.check();
    this.#functions.add(name);
  }

  /**
   * Queues the operations that `start` starts: each runs as soon as the one before is done, and may take what that one gives
   * before it is there. The promise is of the end of all; it throws TensorFlow's message if one failed.
   */
  async queue(start: () => void): Promise<void> {
    const { c, pointer } = this, queue = this.#queues.pop() ?? c.TFE_NewExecutor(true, false, 0);
    using status = new Status(c); // its own: other calls go on meanwhile
    c.TFE_ContextSetExecutorForThread(pointer, queue);
    try {
      start();
    } finally {
      c.TFE_ContextSetExecutorForThread(pointer, this.#waiting);
      await c.TFE_ExecutorWaitForAllPendingNodes(queue, status.pointer);
      c.TFE_ExecutorClearError(queue);
      this.#queues.push(queue);
    }
    status.check();
  }

  /** Forgets a function. */
  remove(name: string): void {
    if (!this.#functions.delete(name)) return;
    this.c.TFE_ContextRemoveFunction(this.pointer, cString(name), this.status.pointer);
    this.status.check();
  }

  #bestDevice(): { name: string; memory: number } {
    const devices = this.c.TFE_ContextListDevices(this.pointer, this.status.pointer);
    this.status.check();
    const found = new Map<string, { name: string; memory: number }>();
    for (let i = this.c.TF_DeviceListCount(devices) - 1; i >= 0; i--) {
      found.set(text(this.c.TF_DeviceListType(devices, i, this.status.pointer)), {
        name: text(this.c.TF_DeviceListName(devices, i, this.status.pointer)),
        memory: Number(this.c.TF_DeviceListMemoryBytes(devices, i, this.status.pointer)),
      });
    }
    this.c.TF_DeleteDeviceList(devices);
    return found.get("GPU") ?? found.get("CPU") ?? { name: "", memory: 0 };
  }
}

/** Fields of a `ConfigProto`: 6.4 gpu_options.allow_growth. Otherwise TensorFlow takes all of a GPU's memory at once. */
const GROWING_MEMORY = [6 << 3 | 2, 2, 4 << 3, 1];

/** A `ConfigProto`: field 2 is intra_op_parallelism_threads, field 5 inter_op_parallelism_threads. */
export function threadsConfig({ intraOp, interOp }: Threads): Uint8Array<ArrayBuffer> {
  return new Uint8Array([2 << 3, ...varint(intraOp), 5 << 3, ...varint(interOp)]);
}
