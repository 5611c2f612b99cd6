/** TensorFlow's own trace of a graph that it runs: when each operation began and ended. */

import { type Threads, threadsConfig } from "./context.ts";
import { Status, type Symbols } from "./library.ts";

/**
 * When one operation of a graph ran.
 *
 * @internal
 */
export interface OperationTime {
  /** Its name in the graph, e.g. `h.0/attn/Softmax_12`. */
  name: string;
  /** When its kernel was called, in microseconds from the first of all. */
  start: number;
  /** How long that took, in microseconds. */
  duration: number;
  /** How many threads that took. */
  threads: number;
}

/** RunOptions with trace_level FULL_TRACE. */
const FULL_TRACE = new Uint8Array([1 << 3, 3]);

/** Runs before the one that is traced: kernels pack their weights in the first. */
const WARMUPS = 3;

/** Runs a graph with a trace. It keeps a claim on the graph, which must outlive it. */
export class TracingSession {
  readonly #session: Deno.PointerValue;

  /** A session with threads of its own. */
  constructor(
    private readonly c: Symbols,
    private readonly status: Status,
    graph: Deno.PointerValue,
    threads: Threads,
  ) {
    const options = c.TF_NewSessionOptions();
    try {
      // ConfigProto: 9 use_per_session_threads; 10.10.19 graph_options.rewrite_options.disable_meta_optimizer, so that
      // the operations stay those that were captured.
      const ownThreads = [9 << 3, 1], noRewriting = [10 << 3 | 2, 5, 10 << 3 | 2, 3, 0x98, 0x01, 1];
      const config = new Uint8Array([...threadsConfig(threads), ...ownThreads, ...noRewriting]);
      c.TF_SetConfig(options, config, BigInt(config.length), status.pointer);
      status.check();
      this.#session = c.TF_NewSession(graph, options, status.pointer);
      status.check();
    } finally {
      c.TF_DeleteSessionOptions(options);
    }
  }

  /** Inputs and outputs are arrays of `TF_Output`, `values` of pointers to `TF_Tensor`. */
  async run(
    inputs: Uint8Array<ArrayBuffer>,
    values: BigUint64Array<ArrayBuffer>,
    outputs: Uint8Array<ArrayBuffer>,
    outputCount: number,
  ): Promise<OperationTime[]> {
    const { c } = this;
    using status = new Status(c); // its own: other calls go on meanwhile
    const traced = c.TF_NewBufferFromString(FULL_TRACE, BigInt(FULL_TRACE.length)), metadata = c.TF_NewBuffer();
    const results = new BigUint64Array(outputCount);
    try {
      for (let run = 0; run <= WARMUPS; run++) {
        const [how, where] = run === WARMUPS ? [traced, metadata] : [null, null];
        await c.runSessionInBackground(
          this.#session,
          how,
          inputs,
          values,
          values.length,
          outputs,
          results,
          outputCount,
          null,
          0,
          where,
          status.pointer,
        );
        status.check();
        for (const result of results) c.TF_DeleteTensor(Deno.UnsafePointer.create(result));
      }
      const view = new Deno.UnsafePointerView(metadata!);
      const data = view.getPointer(0), length = Number(view.getBigUint64(8));
      return data ? operationTimes(new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(data, length))) : [];
    } finally {
      c.TF_DeleteBuffer(traced);
      c.TF_DeleteBuffer(metadata);
    }
  }

  /** Frees the session. */
  [Symbol.dispose](): void {
    this.c.TF_DeleteSession(this.#session, this.status.pointer);
  }
}

/**
 * Reads a RunMetadata message (`tensorflow/core/protobuf/config.proto`, `framework/step_stats.proto`): field 1 of it are the
 * StepStats, whose field 1 are the devices, whose field 2 are the operations.
 */
function operationTimes(runMetadata: Uint8Array): OperationTime[] {
  const decoder = new TextDecoder(), times: OperationTime[] = [];
  const inside = function* (message: Uint8Array, wanted: number) {
    for (const [field, value] of protoFields(message)) if (field === wanted) yield value as Uint8Array;
  };
  for (const stats of inside(runMetadata, 1)) {
    for (const device of inside(stats, 1)) {
      for (const node of inside(device, 2)) {
        const fields = new Map(protoFields(node)),
          nanoseconds = (field: number) => Number(fields.get(field) ?? 0) / 1000;
        const [name, allStart, opStart, opEnd] = [1, 13, 14, 15];
        times.push({
          name: decoder.decode(fields.get(name) as Uint8Array),
          start: nanoseconds(allStart) + nanoseconds(opStart),
          duration: nanoseconds(opEnd) - nanoseconds(opStart),
          threads: 1, // it does not say how many shared the work
        });
      }
    }
  }
  const first = Math.min(...times.map(({ start }) => start));
  return times.map((time) => ({ ...time, start: time.start - first })).sort((a, b) => a.start - b.start);
}

/** The fields of a protocol buffer message: numbers, and bytes of whatever has a length. */
function* protoFields(message: Uint8Array): Generator<[field: number, value: bigint | Uint8Array]> {
  let at = 0;
  const varint = () => {
    let value = 0n, shift = 0n, byte;
    do {
      byte = message[at++];
      value |= BigInt(byte & 127) << shift;
      shift += 7n;
    } while (byte > 127);
    return value;
  };
  while (at < message.length) {
    const tag = Number(varint()), field = tag >> 3;
    switch (tag & 7) {
      case 0:
        yield [field, varint()];
        break;
      case 2: {
        const length = Number(varint());
        yield [field, message.subarray(at, at += length)];
        break;
      }
      default: // fixed64 or fixed32, which these messages do not use
        at += (tag & 7) === 1 ? 8 : 4;
    }
  }
}
