/** What crosses between JavaScript and TensorFlow: every kind of tensor and attribute, errors, and who frees what. */

import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { fileURLToPath } from "node:url";
import { attr, type Attribute, AttributeType, DataType } from "../lib/tensorflow/capi/attributes.ts";
import { TensorflowBackend } from "../lib/tensorflow/tfjs/backend.ts";
import { ensureLibtensorflow } from "../lib/tensorflow/install/install.ts";
import { TensorflowError } from "../lib/tensorflow/capi/library.ts";
import { collectGarbage } from "./_support/garbage.ts";

const backend = new TensorflowBackend(await ensureLibtensorflow(), { intraOp: 2, interOp: 1 });
await tf.setBackend("tensorflow");
const { binding } = backend;
const { float, int32, int64, bool, complex64, uint8, string } = DataType;

/** Runs an operation with one output and gives its values; frees everything. */
function valuesOf(op: string, attributes: Attribute[], inputs: [shape: number[], dtype: number, values: unknown][]) {
  const ids = inputs.map(([shape, dtype, values]) => binding.createTensor(shape, dtype, values as number[]));
  const [output] = binding.executeOp(op, attributes, ids, 1), values = binding.tensorDataSync(output.id);
  for (const id of [...ids, output.id]) binding.deleteTensor(id);
  return { ...output, values };
}

Deno.test("numbers of every dtype come back from an operation as they went in", () => {
  const cases: [number, unknown, unknown][] = [
    [float, [1.5, -0, 1e30], new Float32Array([1.5, -0, 1e30])],
    [float, new Float32Array([1, NaN, Infinity]), new Float32Array([1, NaN, Infinity])],
    [int32, [2 ** 31 - 1, -(2 ** 31), 0], new Int32Array([2 ** 31 - 1, -(2 ** 31), 0])],
    [int64, [1, -1, 2 ** 53 - 1], new BigInt64Array([1n, -1n, 2n ** 53n - 1n])],
    [
      int64,
      new BigInt64Array([2n ** 63n - 1n, -(2n ** 63n), 0n]),
      new BigInt64Array([2n ** 63n - 1n, -(2n ** 63n), 0n]),
    ],
    [int64, new Int32Array([-3, -1, 7, 0, 0, 1]), new BigInt64Array([-3n, 7n, 2n ** 32n])],
    [bool, [true, false, true], new Uint8Array([1, 0, 1])],
    [uint8, [0, 255, 7], new Uint8Array([0, 255, 7])],
    [complex64, new Float32Array([1, 2, 3, 4, 5, 6]), new Float32Array([1, 2, 3, 4, 5, 6])],
  ];
  for (const [dtype, values, expected] of cases) {
    const output = valuesOf("Identity", [attr.type("T", dtype)], [[[3], dtype, values]]);
    assert.deepEqual(output.values, expected);
    assert.deepEqual([output.shape, output.dtype], [[3], dtype]);
  }
});

Deno.test("strings of all lengths and bytes come back, from operations that share them and those that make them", () => {
  const texts = ["", "ü", "short", "x".repeat(22), "y".repeat(23), "z".repeat(100_000), "\0\0"];
  const bytes = texts.map((text) => new TextEncoder().encode(text)).concat(new Uint8Array([255, 0, 128]));
  const input: [number[], number, unknown] = [[2, 4], string, bytes];
  assert.deepEqual(valuesOf("Identity", [attr.type("T", string)], [input]).values, bytes);
  const reversed = valuesOf("ReverseV2", [attr.type("T", string), attr.type("Tidx", int32)], [input, [[1], int32, [
    1,
  ]]]);
  assert.deepEqual(reversed.values, [3, 2, 1, 0, 7, 6, 5, 4].map((i) => bytes[i]));
  const joined = valuesOf("StringJoin", [attr.int("N", 2), attr.string("separator", "–")], [input, input]);
  assert.deepEqual((joined.values as Uint8Array[])[1], new TextEncoder().encode("ü–ü"));
  assert.deepEqual(valuesOf("Identity", [attr.type("T", string)], [[[0, 2], string, []]]).values, []);
});

Deno.test("tensors made of a string tensor outlive it", () => {
  const text = "long enough to live outside of its record",
    id = binding.createTensor([1], string, [new TextEncoder().encode(text)]);
  const [same] = binding.executeOp("Identity", [attr.type("T", string)], [id], 1);
  binding.deleteTensor(id);
  assert.equal(new TextDecoder().decode((binding.tensorDataSync(same.id) as Uint8Array[])[0]), text);
  binding.deleteTensor(same.id);
});

Deno.test("a resource is a handle that operations take, and reads as bytes that name it", () => {
  const attributes = [attr.type("dtype", float), attr.shape("shape", [2]), attr.string("shared_name", "a variable")];
  const [variable] = binding.executeOp("VarHandleOp", attributes, [], 1);
  const value = binding.createTensor([2], float, [1, 2]);
  assert.deepEqual(binding.executeOp("AssignVariableOp", [attr.type("dtype", float)], [variable.id, value], 0), []);
  const [read] = binding.executeOp("ReadVariableOp", [attr.type("dtype", float)], [variable.id], 1);
  assert.deepEqual(binding.tensorDataSync(read.id), new Float32Array([1, 2]));
  assert.equal(variable.dtype, binding.TF_RESOURCE);
  assert.match(new TextDecoder().decode(binding.tensorDataSync(variable.id) as Uint8Array), /a variable/);
  for (const { id } of [variable, read]) binding.deleteTensor(id);
  binding.deleteTensor(value);
});

Deno.test("attributes of every kind reach the operation, single and in lists", () => {
  const x: [number[], number, unknown] = [[1, 4], float, [3, 1, 2, 0]], T = attr.type("T", float);
  const outputs: [string, Attribute[], [number[], number, unknown][], unknown][] = [
    ["Sum", [T, attr.bool("keep_dims", true), attr.type("Tidx", int32)], [x, [[1], int32, [1]]], [6]],
    ["LeakyRelu", [T, attr.float("alpha", 0.5)], [[[1], float, [-2]]], [-1]],
    ["OneHot", [T, attr.type("TI", int32), attr.int("axis", -1)], [
      [[], int32, [1]],
      [[], int32, [2]],
      [[], float, [5]],
      [[], float, [0]],
    ], [0, 5]],
    ["StringToNumber", [attr.type("out_type", float)], [[[1], string, [new TextEncoder().encode("2.5")]]], [2.5]],
    ["Bucketize", [attr.type("T", float), { name: "boundaries", type: AttributeType.float, value: [1, 2] }], [x], [
      2,
      1,
      2,
      0,
    ]],
    ["Squeeze", [T, attr.int("squeeze_dims", [0])], [x], [3, 1, 2, 0]],
    ["PlaceholderWithDefault", [attr.type("dtype", float), attr.shape("shape", [-1, 4])], [x], [3, 1, 2, 0]],
  ];
  for (const [op, attributes, inputs, expected] of outputs) {
    assert.deepEqual(Array.from(valuesOf(op, attributes, inputs).values as Float32Array), expected, op);
  }
  // An empty list of shapes is not an empty shape.
  const unshaped = [attr.type("component_types", [float]), attr.shape("shapes", [])];
  binding.deleteTensor(binding.executeOp("FIFOQueueV2", [...unshaped, attr.int("capacity", 1)], [], 1)[0].id);
  // Lists of shapes, types and strings: a queue of pairs.
  const pair = [attr.type("component_types", [float, string]), attr.shape("shapes", [[2], []])];
  const [queue] = binding.executeOp("FIFOQueueV2", [...pair, attr.int("capacity", 1)], [], 1);
  const parts = [binding.createTensor([2], float, [1, 2]), binding.createTensor([], string, [new Uint8Array([65])])];
  binding.executeOp("QueueEnqueueV2", [attr.type("Tcomponents", [float, string])], [queue.id, ...parts], 0);
  const dequeued = binding.executeOp("QueueDequeueV2", [attr.type("component_types", [float, string])], [queue.id], 2);
  assert.deepEqual(dequeued.map(({ id }) => binding.tensorDataSync(id)), [new Float32Array([1, 2]), [
    new Uint8Array([65]),
  ]]);
  for (const id of [queue.id, ...parts, ...dequeued.map(({ id }) => id)]) binding.deleteTensor(id);
});

Deno.test("a call that makes no sense says what was wrong with it", () => {
  const x = binding.createTensor([2, 2], float, [1, 2, 3, 4]),
    gone = binding.createTensor([], float, [1]),
    T = attr.type("T", float);
  binding.deleteTensor(gone);
  const flag = binding.createTensor([], bool, [true]), three = binding.createTensor([3, 1], float, [1, 2, 3]);
  const untransposed = [attr.bool("transpose_a", false), attr.bool("transpose_b", false)];
  const cases: [() => unknown, { name: string; message: RegExp }][] = [
    [() => binding.executeOp("Square", [T], [gone], 1), {
      name: "ReferenceError",
      message: /^Cannot use tensor \d+: it was disposed of/,
    }],
    [() => binding.deleteTensor(gone), { name: "ReferenceError", message: /disposed of/ }],
    [() => binding.executeOp("Squared", [T], [x], 1), {
      name: "TensorflowError",
      message: /Op type not registered 'Squared'/,
    }],
    [() => binding.executeOp("Square", [T], [x, x], 1), {
      name: "RangeError",
      message: /Square on 2 tensors: .* it takes 1/,
    }],
    [() => binding.executeOp("Square", [T], [x], 2), {
      name: "RangeError",
      message: /Square for 2 outputs: .* it has 1/,
    }],
    [() => binding.executeOp("Square", [attr.type("T", bool)], [flag], 1), {
      name: "TensorflowError",
      message: /of bool is not in the list of allowed values/,
    }],
    [() => binding.executeOp("Square", [attr.int("T", 1)], [x], 1), {
      name: "TypeError",
      message: /T of Square: it is of type type and was given int/,
    }],
    [() => binding.executeOp("Square", [T, attr.int("U", 1)], [x], 1), {
      name: "TypeError",
      message: /U of Square: it has none/,
    }],
    [() => binding.executeOp("MatMul", [T, { name: "transpose_a", type: AttributeType.bool, value: 1 }], [x, x], 1), {
      name: "TypeError",
      message: /takes true or false, and got 1/,
    }],
    [() => binding.executeOp("Cast", [attr.type("SrcT", float)], [x], 1), {
      name: "TypeError",
      message: /Cast without the attribute DstT, of type type/,
    }],
    [() => binding.executeOp("MatMul", [T, ...untransposed], [x, three], 1), {
      name: "TensorflowError",
      message: /Matrix size-incompatible/,
    }],
    [() => binding.createTensor([3], float, [1, 2]), { name: "RangeError", message: /takes 12 bytes and got 8/ }],
    [() => binding.createTensor([-1], float, []), { name: "RangeError", message: /shape \[-1\]/ }],
    [() => binding.createTensor([1], float, ["a"] as unknown as number[]), {
      name: "TypeError",
      message: /with an array of other things/,
    }],
    [() => binding.createTensor([2], string, [new Uint8Array()]), {
      name: "RangeError",
      message: /takes 2 strings and got 1/,
    }],
    [
      () => binding.executeOp("Square", [T, { name: "U", type: 999, value: 1 }], [x], 1),
      { name: "TypeError", message: /U of Square: it has none/ },
    ],
    [
      () => binding.executeOp("Square", [T, { name: "_kernel", type: 999, value: 1 }], [x], 1),
      { name: "TypeError", message: /attribute _kernel of Square/ },
    ],
  ];
  for (const [call, expected] of cases) assert.throws(call, expected);
  for (const id of [x, flag, three]) binding.deleteTensor(id);
});

Deno.test("what does not fit into memory is an error, and the next call works", () => {
  tf.tidy(() => {
    assert.throws(
      () => tf.fill([2 ** 20, 2 ** 20], 1),
      (error) => error instanceof TensorflowError && /OOM/.test(error.message),
    );
    assert.throws(() => binding.createTensor([2 ** 33], uint8, []), /takes 8589934592 bytes and got 0/);
    assert.equal(tf.sum(tf.ones([10])).dataSync()[0], 10);
  });
});

Deno.test("a tensor that nobody can reach is freed, and counted as forgotten", async () => {
  const tensors = binding.getNumOfTensors(), collected = backend.collectedTensors;
  (() => void Array.from({ length: 100 }, () => tf.add(tf.scalar(1), 1)))();
  assert.ok(binding.getNumOfTensors() >= tensors + 100);
  await collectGarbage();
  assert.equal(binding.getNumOfTensors(), tensors);
  assert.ok(backend.collectedTensors >= collected + 100);
});

Deno.test("a tensor that was disposed of is not counted, and one that a captured function uses is not freed", async () => {
  await collectGarbage(); // what other tests forgot
  const collected = backend.collectedTensors, x = tf.scalar(2);
  for (let i = 0; i < 100; i++) tf.tidy(() => void tf.add(x, 1));
  const captured = (() => {
    const weight = tf.tidy(() => tf.add(tf.scalar(1), 2));
    return backend.capture([x], ([x]) => [tf.mul(x, weight)]);
  })();
  await collectGarbage();
  await assert.rejects(captured.run([]), /on 0 tensors: it was captured with 1/);
  await assert.rejects(captured.run([x, x]), /on 2 tensors/);
  const [y] = await captured.run([x]);
  assert.equal(y.dataSync()[0], 6);
  assert.equal(backend.collectedTensors, collected);
  captured.dispose();
  tf.dispose([x, y]);
});

Deno.test("workers use TensorFlow at the same time, each by itself", async () => {
  const args = ["run", "-A", fileURLToPath(new URL("_support/workers.ts", import.meta.url))];
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  const slopes: number[] = JSON.parse(new TextDecoder().decode(stdout));
  slopes.forEach((slope, i) => assert.ok(Math.abs(slope - (i + 1)) < 1e-4, `${slopes}`));
  assert.equal(slopes.length, 4);
});
