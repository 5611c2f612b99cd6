/**
 * libtensorflow's C API through Deno's foreign function interface: the symbols, and how its statuses become errors.
 *
 * Source: `tensorflow/c/c_api.h` (`TF_*`) and `tensorflow/c/eager/c_api.h` (`TFE_*`) of TensorFlow 2.21.
 */

import { pin } from "../../util/pin.ts";
import type { Libtensorflow } from "../install/locate.ts";

const pointer = "pointer", buffer = "buffer", i32 = "i32", i64 = "i64", u8 = "u8", usize = "usize", none = "void";

/** `TF_Output`, passed by value: the operation and which of its outputs. */
const output = { struct: [pointer, i32] } as const;

/** Session, run options, inputs, their values, count, outputs, their values, count, targets, count, metadata, status. */
const sessionRun = [
  ...[pointer, pointer, buffer, buffer, i32, buffer, buffer, i32] as const,
  ...[pointer, i32, pointer, pointer] as const,
] as const;

/** What sets attributes has the same parameters for an operation that runs at once and for one in a graph. */
const SETTERS = {
  String: { parameters: [pointer, buffer, buffer, usize], result: none },
  Int: { parameters: [pointer, buffer, i64], result: none },
  Float: { parameters: [pointer, buffer, "f32"], result: none },
  Bool: { parameters: [pointer, buffer, u8], result: none },
  Type: { parameters: [pointer, buffer, i32], result: none },
  StringList: { parameters: [pointer, buffer, buffer, buffer, i32], result: none },
  IntList: { parameters: [pointer, buffer, buffer, i32], result: none },
  FloatList: { parameters: [pointer, buffer, buffer, i32], result: none },
  BoolList: { parameters: [pointer, buffer, buffer, i32], result: none },
  TypeList: { parameters: [pointer, buffer, buffer, i32], result: none },
} as const;

function attributeSetters<P extends string>(prefix: P) {
  const named = Object.entries(SETTERS).map(([kind, definition]) => [prefix + kind, definition]);
  return Object.fromEntries(named) as { [K in keyof typeof SETTERS as `${P}${K}`]: typeof SETTERS[K] };
}

const symbols = {
  TF_Version: { parameters: [], result: pointer },
  TF_NewStatus: { parameters: [], result: pointer },
  TF_DeleteStatus: { parameters: [pointer], result: none },
  TF_SetStatus: { parameters: [pointer, i32, buffer], result: none },
  TF_GetCode: { parameters: [pointer], result: i32 },
  TF_Message: { parameters: [pointer], result: pointer },

  // Host tensors.
  TF_AllocateTensor: { parameters: [i32, buffer, i32, usize], result: pointer },
  TF_DeleteTensor: { parameters: [pointer], result: none },
  TF_TensorData: { parameters: [pointer], result: pointer },
  TF_TensorByteSize: { parameters: [pointer], result: usize },
  TF_TensorFromProto: { parameters: [pointer, pointer, pointer], result: none },
  TF_NewBufferFromString: { parameters: [buffer, usize], result: pointer },
  TF_StringGetSize: { parameters: [pointer], result: usize },
  TF_StringGetDataPointer: { parameters: [pointer], result: pointer },

  // The eager context and its devices.
  TFE_NewContextOptions: { parameters: [], result: pointer },
  TFE_ContextOptionsSetConfig: { parameters: [pointer, buffer, usize, pointer], result: none },
  TFE_DeleteContextOptions: { parameters: [pointer], result: none },
  TFE_NewContext: { parameters: [pointer, pointer], result: pointer },
  TFE_ContextListDevices: { parameters: [pointer, pointer], result: pointer },
  TF_DeviceListCount: { parameters: [pointer], result: i32 },
  TF_DeviceListName: { parameters: [pointer, i32, pointer], result: pointer },
  TF_DeviceListType: { parameters: [pointer, i32, pointer], result: pointer },
  TF_DeviceListMemoryBytes: { parameters: [pointer, i32, pointer], result: i64 },
  TF_DeleteDeviceList: { parameters: [pointer], result: none },

  // Tensors on a device.
  TFE_NewTensorHandle: { parameters: [pointer, pointer], result: pointer },
  TFE_DeleteTensorHandle: { parameters: [pointer], result: none },
  TFE_TensorHandleResolve: { parameters: [pointer, pointer], result: pointer },
  TFE_TensorHandleCopyToDevice: { parameters: [pointer, pointer, buffer, pointer], result: pointer },
  TFE_TensorHandleNumDims: { parameters: [pointer, pointer], result: i32 },
  TFE_TensorHandleDim: { parameters: [pointer, i32, pointer], result: i64 },
  TFE_TensorHandleDataType: { parameters: [pointer], result: i32 },

  // Eager operations.
  TFE_NewOp: { parameters: [pointer, buffer, pointer], result: pointer },
  TFE_DeleteOp: { parameters: [pointer], result: none },
  TFE_OpSetDevice: { parameters: [pointer, buffer, pointer], result: none },
  TFE_OpAddInput: { parameters: [pointer, pointer, pointer], result: none },
  TFE_OpAddInputList: { parameters: [pointer, buffer, i32, pointer], result: none },
  ...attributeSetters("TFE_OpSetAttr"),
  TFE_OpSetAttrShape: { parameters: [pointer, buffer, buffer, i32, pointer], result: none },
  TFE_OpSetAttrShapeList: { parameters: [pointer, buffer, buffer, buffer, i32, pointer], result: none },
  TFE_Execute: { parameters: [pointer, buffer, buffer, pointer], result: none },
  /** The same, on a thread of its own: a promise. */
  executeInBackground: {
    name: "TFE_Execute",
    parameters: [pointer, buffer, buffer, pointer],
    result: none,
    nonblocking: true,
  },

  // Executors: whether the thread that starts operations waits for them.
  TFE_NewExecutor: { parameters: ["bool", "bool", i32], result: pointer },
  TFE_ContextGetExecutorForThread: { parameters: [pointer], result: pointer },
  TFE_ContextSetExecutorForThread: { parameters: [pointer, pointer], result: none },
  TFE_ExecutorWaitForAllPendingNodes: { parameters: [pointer, pointer], result: none, nonblocking: true },
  TFE_ExecutorClearError: { parameters: [pointer], result: none },

  // Graphs and functions.
  TF_NewGraph: { parameters: [], result: pointer },
  TF_DeleteGraph: { parameters: [pointer], result: none },
  TF_NewOperation: { parameters: [pointer, buffer, buffer], result: pointer },
  TF_FinishOperation: { parameters: [pointer, pointer], result: pointer },
  TF_AddInput: { parameters: [pointer, output], result: none },
  TF_AddInputList: { parameters: [pointer, buffer, i32], result: none },
  TF_GraphGetOpDef: { parameters: [pointer, buffer, pointer, pointer], result: none },
  TF_NewBuffer: { parameters: [], result: pointer },
  TF_DeleteBuffer: { parameters: [pointer], result: none },
  TF_OperationOutputType: { parameters: [output], result: i32 },
  TF_GraphGetTensorNumDims: { parameters: [pointer, output, pointer], result: i32 },
  TF_GraphGetTensorShape: { parameters: [pointer, output, buffer, i32, pointer], result: none },
  TF_OperationOutputNumConsumers: { parameters: [output], result: i32 },
  TF_OperationOutputConsumers: { parameters: [output, buffer, i32], result: i32 },
  TF_UpdateEdge: { parameters: [pointer, output, output, pointer], result: none },
  TF_GraphSetTensorShape: { parameters: [pointer, output, buffer, i32, pointer], result: none },
  TF_GraphToFunctionWithControlOutputs: {
    // graph, name, append hash, operations, inputs, outputs, output names, what must run too, its names, options,
    // description, status
    parameters: [
      ...[pointer, buffer, u8, i32, buffer, i32, buffer, i32, buffer, pointer],
      ...[i32, buffer, pointer, pointer, pointer, pointer],
    ],
    result: pointer,
  },
  TF_DeleteFunction: { parameters: [pointer], result: none },
  TFE_ContextAddFunction: { parameters: [pointer, pointer, pointer], result: none },
  TFE_ContextRemoveFunction: { parameters: [pointer, buffer, pointer], result: none },

  ...attributeSetters("TF_SetAttr"),
  TF_SetAttrShape: { parameters: [pointer, buffer, buffer, i32], result: none },
  TF_SetAttrTensor: { parameters: [pointer, buffer, pointer, pointer], result: none },
  TF_SetAttrShapeList: { parameters: [pointer, buffer, buffer, buffer, i32], result: none },

  // Sessions: they run graphs as functions do, can trace what they run, and hold saved models.
  TF_NewSessionOptions: { parameters: [], result: pointer },
  TF_SetConfig: { parameters: [pointer, buffer, usize, pointer], result: none },
  TF_DeleteSessionOptions: { parameters: [pointer], result: none },
  TF_NewSession: { parameters: [pointer, pointer, pointer], result: pointer },
  TF_LoadSessionFromSavedModel: {
    // session options, run options, folder, tags, their number, graph, metagraph, status
    parameters: [pointer, pointer, buffer, buffer, i32, pointer, pointer, pointer],
    result: pointer,
  },
  TF_DeleteSession: { parameters: [pointer, pointer], result: none },
  TF_GraphOperationByName: { parameters: [pointer, buffer], result: pointer },
  TF_OperationNumOutputs: { parameters: [pointer], result: i32 },
  TF_SessionRun: { parameters: sessionRun, result: none },
  /** The same, on a thread of its own: a promise. */
  runSessionInBackground: { name: "TF_SessionRun", parameters: sessionRun, result: none, nonblocking: true },
} as const;

/** C's copies, into native memory, out of it and within it: 30 times as fast as an ArrayBuffer over that memory, for a few bytes. */
const memory = {
  copyIn: { name: "memcpy", parameters: [pointer, buffer, usize], result: pointer },
  copyOut: { name: "memcpy", parameters: [buffer, pointer, usize], result: pointer },
  /** From one address to another, also where the two overlap. Numbers: two pointer objects take longer than to copy a kilobyte. */
  copyWithin: { name: "memmove", parameters: [usize, usize, usize], result: none },
} as const;

/** The C API's functions, by their names in its header, and {@link memory}'s. */
export type Symbols =
  & Deno.DynamicLibrary<typeof symbols>["symbols"]
  & Deno.DynamicLibrary<typeof memory>["symbols"];

/** An opened libtensorflow. */
export class Library {
  /** The functions. */
  readonly c: Symbols;
  /** TensorFlow's version, e.g. `2.21.0`. */
  readonly version: string;

  /** Opens the library at `paths`; it stays open until the process ends. Throws what the loader says when it cannot. */
  constructor(readonly paths: Libtensorflow) {
    // Otherwise all contexts share the threads of the first one.
    Deno.env.set("TF_OVERRIDE_GLOBAL_THREADPOOL", "1");
    // XLA would else write matrix products of its own and try them out, which takes it twice as long and gains nothing.
    const flags = Deno.env.get("XLA_FLAGS") ?? "", triton = "--xla_gpu_enable_triton_gemm";
    if (!flags.includes(triton)) Deno.env.set("XLA_FLAGS", `${flags} ${triton}=false`.trim());
    this.c = quietly(() => {
      // The main library needs the framework and finds it by its name once it is loaded.
      if (paths.framework) pin(paths.framework);
      pin(paths.main);
      endAtOnce();
      // Where libraries see what they depend on, C's own functions are in there, too.
      const c = Deno.build.os === "windows" ? "ucrtbase.dll" : paths.main;
      return { ...Deno.dlopen(paths.main, symbols).symbols, ...Deno.dlopen(c, memory).symbols };
    });
    this.version = text(this.c.TF_Version());
  }

  /** A status of its own for calls that may overlap others; frees itself. */
  newStatus(): Status {
    return new Status(this.c);
  }
}

/** A `TF_Status`: where a C function says how it went. */
export class Status {
  /** What the C functions take. */
  readonly pointer: Deno.PointerValue;

  /** Allocates a status. */
  constructor(private readonly c: Symbols) {
    this.pointer = c.TF_NewStatus();
  }

  /** Throws TensorFlow's message if the last call that used this status failed. */
  check(): void {
    const code = this.c.TF_GetCode(this.pointer);
    if (code === 0) return;
    const error = new TensorflowError(code, text(this.c.TF_Message(this.pointer)));
    this.c.TF_SetStatus(this.pointer, 0, cString("")); // not every function does this when it succeeds
    throw error;
  }

  /** Frees the status. */
  [Symbol.dispose](): void {
    this.c.TF_DeleteStatus(this.pointer);
  }
}

/** What TensorFlow refused to do, in its own words. */
export class TensorflowError extends Error {
  /** The class's name. */
  override name = "TensorflowError";

  /**
   * An error of TensorFlow's.
   *
   * @param code the `TF_Code`, e.g. 3 for an invalid argument
   * @param message TensorFlow's message
   */
  constructor(readonly code: number, message: string) {
    super(message);
  }
}

/** A C string in JS. */
export function text(pointer: Deno.PointerValue): string {
  return pointer ? Deno.UnsafePointerView.getCString(pointer) : "";
}

const encoder = new TextEncoder();

/** A JS string for C, ended by a zero byte. Keep a reference for as long as C may read it. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(text + "\0");
}

/**
 * 64-bit numbers for C, in an array that is used again and again: a new one costs more than most calls. Only until the
 * next use, and for calls that are over when they return.
 */
export function int64s(values: ArrayLike<number | bigint>): BigInt64Array<ArrayBuffer> {
  if (values.length > scratch.length) return BigInt64Array.from(Array.from(values, BigInt));
  for (let i = 0; i < values.length; i++) scratch[i] = BigInt(values[i]);
  return scratch;
}

const scratch = new BigInt64Array(256);

/** Where the arrays are in memory, for C's arrays of pointers; {@link keep} the arrays until C has read them. */
export function addressesOf(arrays: readonly ArrayBufferView<ArrayBuffer>[]): BigUint64Array<ArrayBuffer> {
  return new BigUint64Array(arrays.map((array) => Deno.UnsafePointer.value(Deno.UnsafePointer.of(array))));
}

/** Called after C has read memory that it knows by address alone: until here, that may not be collected. */
export function keep(_memory: unknown): void {}

/**
 * Lets the process end without C's exit handlers, where that can be had: TensorFlow's destroy what its threads may still be
 * using, and the process would crash. glibc calls the handler that came last first, with the exit code.
 */
function endAtOnce(): void {
  if (Deno.build.os !== "linux") return;
  const { symbols } = Deno.dlopen("libc.so.6", {
    dlsym: { parameters: ["pointer", "buffer"], result: "pointer" },
    on_exit: { parameters: ["pointer", "pointer"], result: "i32" },
  });
  const exit = symbols.dlsym(null, cString("_exit"));
  addEventListener("unload", () => symbols.on_exit(exit, null));
}

/**
 * Opens a library with stderr closed: on loading, TensorFlow prints notes there that no log level turns off. With
 * `TF_CPP_MIN_LOG_LEVEL=0` they are shown.
 */
function quietly<T>(open: () => T): T {
  const level = Deno.env.get("TF_CPP_MIN_LOG_LEVEL");
  if (level === undefined) Deno.env.set("TF_CPP_MIN_LOG_LEVEL", "2"); // warnings off, errors on; read while loading
  if (level === "0" || Deno.build.os !== "linux") return open();
  const libc = Deno.dlopen("libc.so.6", {
    dup: { parameters: ["i32"], result: "i32" },
    dup2: { parameters: ["i32", "i32"], result: "i32" },
    open: { parameters: ["buffer", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
  });
  const { dup, dup2, open: openFile, close } = libc.symbols;
  const stderr = 2, writeOnly = 1, saved = dup(stderr), nowhere = openFile(cString("/dev/null"), writeOnly);
  try {
    if (nowhere >= 0) dup2(nowhere, stderr);
    return open();
  } finally {
    if (saved >= 0) dup2(saved, stderr);
    for (const file of [saved, nowhere]) if (file >= 0) close(file);
    libc.close();
  }
}
