import assert from "node:assert/strict";
import * as tf from "@tensorflow/tfjs";
import { attr, DataType } from "../lib/tensorflow/capi/attributes.ts";
import { isAmd } from "../lib/tensorflow/capi/processors.ts";
import { TensorflowBackend } from "../lib/tensorflow/tfjs/backend.ts";
import { ensureLibtensorflow } from "../lib/tensorflow/install/install.ts";
import { TensorflowError } from "../lib/tensorflow/capi/library.ts";
import { tensorflowOps } from "../lib/tensorflow/ops.ts";
import type { BucketInputs } from "../lib/backend/ops.ts";
import { joinColumns } from "../lib/backend/join_columns.ts";
import { plainOps } from "../lib/backend/plain.ts";
import { assertClose } from "./_support/logits.ts";

const backend = new TensorflowBackend(await ensureLibtensorflow(), { intraOp: 2, interOp: 1 });
await tf.setBackend("tensorflow");
const ops = tensorflowOps(backend);
const { binding } = backend;

/** Runs `test` and fails if it leaves tensors behind, in tfjs or in TensorFlow. */
async function withoutLeaks(test: () => Promise<void> | void) {
  const before = [tf.memory().numTensors, binding.getNumOfTensors()];
  await test();
  assert.deepEqual([tf.memory().numTensors, binding.getNumOfTensors()], before);
}

Deno.test("values come back as they went in, for every dtype of tfjs that holds numbers", async () => {
  await withoutLeaks(() => {
    tf.tidy(() => {
      assert.deepEqual(tf.add(tf.tensor([1.5, -2, 1e30]), 0).arraySync(), [1.5, -2, Math.fround(1e30)]);
      assert.deepEqual(tf.reverse(tf.tensor([2 ** 31 - 1, -2, 1], [3], "int32")).arraySync(), [1, -2, 2 ** 31 - 1]);
      assert.deepEqual(tf.logicalNot(tf.tensor([true, false], [2], "bool")).arraySync(), [0, 1]);
      assert.deepEqual(tf.real(tf.complex([1, 2], [3, 4])).arraySync(), [1, 2]);
      assert.deepEqual(tf.add(tf.zeros([0, 3]), 1).shape, [0, 3]);
      assert.equal(tf.add(tf.scalar(2), 3).arraySync(), 5);
    });
  });
});

Deno.test("tfjs's own operations run on TensorFlow", async () => {
  await withoutLeaks(() => {
    tf.tidy(() => {
      assert.equal(tf.getBackend(), "tensorflow");
      const a = tf.tensor2d([1, 2, 3, 4], [2, 2]);
      assert.deepEqual(tf.matMul(a, a).arraySync(), [[7, 10], [15, 22]]);
      assert.deepEqual(tf.concat([a, a], 1).arraySync(), [[1, 2, 1, 2], [3, 4, 3, 4]]);
      assert.deepEqual(tf.topk(tf.tensor1d([3, 9, 5]), 2).indices.arraySync(), [1, 2]);
      assert.deepEqual(tf.gather(a, tf.tensor1d([1, 0], "int32")).arraySync(), [[3, 4], [1, 2]]);
      assertClose(tf.softmax(tf.tensor1d([0, Math.log(3)])).arraySync() as number[], [0.25, 0.75], 1e-6, "softmax");
    });
  });
});

Deno.test("gradients flow: a step of training lowers the loss", async () => {
  await withoutLeaks(() => {
    const x = tf.tidy(() => tf.variable(tf.scalar(3))), optimizer = tf.train.sgd(0.1);
    const loss = () => tf.square(tf.sub(x, 1)) as tf.Scalar;
    const before = tf.tidy(() => loss().dataSync()[0]);
    optimizer.minimize(loss);
    assert.ok(tf.tidy(() => loss().dataSync()[0]) < before);
    optimizer.dispose();
    x.dispose();
  });
});

Deno.test("what TensorFlow refuses becomes an error with its message", async () => {
  await withoutLeaks(() => {
    tf.tidy(() => {
      const a = tf.ones([2, 3]), untransposed = [attr.bool("transpose_a", false), attr.bool("transpose_b", false)];
      const refuse = (work: () => unknown, message: RegExp) =>
        assert.throws(work, (error) => error instanceof TensorflowError && message.test(error.message));
      refuse(
        () => backend.execute("MatMul", [attr.type("T", DataType.float), ...untransposed], [a, a]),
        /Matrix size-inc/,
      );
      refuse(() => backend.execute("NoSuchOp", [], [a]), /NoSuchOp/);
      assert.throws(
        () => binding.executeOp("Square", [attr.type("T", DataType.float)], [10 ** 9], 1),
        /was disposed of/,
      );
      const [places, size] = [tf.zeros([2, 1, 1], "int32"), tf.tensor1d([4], "int32")]; // here TensorFlow would end the process
      assert.throws(
        () => backend.execute("ScatterNd", [attr.type("Tindices", DataType.int32)], [places, tf.scalar(1), size]),
        /updates of shape \[\]: these need a number of dimensions that is at most one less/,
      );
      assert.throws(
        () => binding.createTensor([2, 2], DataType.float, new Float32Array(3)),
        /takes 16 bytes and got 12/,
      );
      assert.throws(() => binding.createTensor([1], DataType.string, [1]), /takes an array of Uint8Arrays/);
      assert.throws(() => binding.createTensor([2 ** 40], DataType.float, []), /takes 4398046511104 bytes and got 0/);
      assert.deepEqual(backend.execute("Square", [attr.type("T", DataType.float)], [a])[0].shape, [2, 3]);
    });
  });
});

Deno.test("attributes may be lists", async () => {
  await withoutLeaks(() => {
    tf.tidy(() => {
      const x = tf.reshape(tf.range(0, 6), [1, 2, 3, 1]);
      const [y] = backend.execute("Squeeze", [attr.type("T", DataType.float), attr.int("squeeze_dims", [0, 3])], [x]);
      assert.deepEqual(y.shape, [2, 3]);
      const types = attr.type("T", [DataType.float, DataType.float]);
      assert.equal(backend.execute("IdentityN", [types], [x, y], 2).length, 2);
    });
  });
});

Deno.test("a captured function computes what the operations compute, for other sizes and values too", async () => {
  await withoutLeaks(async () => {
    const w = tf.randomNormal<tf.Rank.R2>([4, 3], 0, 1, "float32", 1);
    const layer = (x: tf.Tensor) =>
      tf.tidy(() => tf.concat([tf.tanh(tf.matMul(x as tf.Tensor2D, w)), tf.square(tf.matMul(x as tf.Tensor2D, w))], 1));
    const example = tf.ones([2, 4]);
    const captured = backend.capture([example], ([x]) => [layer(x)]);
    for (const rows of [2, 1, 7]) {
      const x = tf.randomNormal([rows, 4], 0, 1, "float32", rows);
      const [y] = await captured.run([x]);
      const expected = layer(x);
      assert.deepEqual(y.shape, [rows, 6]);
      assertClose(Array.from(y.dataSync()), Array.from(expected.dataSync()), 1e-6, `${rows} rows`);
      tf.dispose([x, y, expected]);
    }
    captured.dispose();
    tf.dispose([w, example]);
  });
});

Deno.test("a captured function takes vectors of one length as one input, and gives what it gives without that", async () => {
  await withoutLeaks(async () => {
    const lengths = [16, 16, 48, 48, 48, 32, 17, 17], vectors = lengths.map((length) => tf.randomNormal([length]));
    const [x, other] = [tf.scalar(3), tf.randomNormal([2, 16])];
    const sums = (x: tf.Tensor) => [...vectors.map((vector) => tf.add(vector, x)), tf.add(other, vectors[0])];
    const build = (x: tf.Tensor) => [...sums(x), tf.clone(vectors[1])]; // the last as it is
    const captured = backend.capture([x], ([x]) => build(x)), results = await captured.run([x]), expected = build(x);
    for (const [i, y] of results.entries()) assert.deepEqual(y.arraySync(), expected[i].arraySync());
    captured.dispose();
    const operations = await backend.trace([x], ([x]) => sums(x), { intraOp: 1, interOp: 1 });
    // x, those of 16, those of 48, the one of 32, two of 17, whose rows would not be aligned, and the matrix.
    assert.equal(operations.filter(({ name }) => name.includes("input_")).length, 1 + 1 + 1 + 1 + 2 + 1);
    tf.dispose([...results, ...expected, ...vectors, x, other]);
  });
});

Deno.test("runs in turn take what the one before gives, and what fails on the way leaves nothing behind", async () => {
  await withoutLeaks(async () => {
    const table = tf.tensor1d([1, 2, 3, 0, 9]),
      start = tf.scalar(0, "int32"),
      [one, ten] = [tf.scalar(1), tf.scalar(10)];
    const types = [attr.type("Tparams", DataType.float), attr.type("Tindices", DataType.int32)];
    const taken = (x: tf.Tensor) =>
      backend.execute("GatherV2", [...types, attr.type("Taxis", DataType.int32), attr.int("batch_dims", 0)], [
        table,
        x,
        tf.scalar(0, "int32"),
      ])[0];
    const captured = backend.capture([start, one], ([x, factor]) => {
      const y = tf.mul(taken(x), factor);
      return [tf.cast(y, "int32"), y];
    });
    const values = (outputs: tf.Tensor[][]) =>
      outputs.map((each) => {
        const read = each.map((y) => y.dataSync()[0]);
        tf.dispose(each);
        return read;
      });
    const turns = (...factors: tf.Tensor[]) => captured.runInTurn(factors.map((factor) => [start, factor]));
    assert.deepEqual(values(await turns(one, one, one, one, one)), [1, 2, 3, 0, 1].map((x) => [x, x]));
    // Two at once, each with an order of its own.
    const both = await Promise.all([turns(one, one, one), turns(one, one)]);
    assert.deepEqual(both.map(values), [[1, 2, 3], [1, 2]].map((all) => all.map((x) => [x, x])));
    await assert.rejects(turns(one, ten, one, one), /20 is not in \[0, 5\)|indices.*not in/s);
    await assert.rejects(captured.runInTurn([[start, one], [start]]), /on 1 tensors: it was captured with 2/);
    assert.deepEqual(values(await turns(one, one)), [[1, 1], [2, 2]]);
    captured.dispose();
    tf.dispose([table, start, one, ten]);
  });
});

Deno.test("captured functions run side by side", async () => {
  await withoutLeaks(async () => {
    const x = tf.ones([64, 64]);
    const captured = backend.capture([x], ([x]) => [tf.matMul(x as tf.Tensor2D, x as tf.Tensor2D)]);
    const results = await Promise.all(Array.from({ length: 16 }, () => captured.run([x])));
    for (const [y] of results) {
      assert.ok(y.dataSync().every((value) => value === 64));
      y.dispose();
    }
    captured.dispose();
    x.dispose();
  });
});

Deno.test({
  name: "as many threads as processors have one each, on Linux; fewer, or a single one, go where they like",
  ignore: Deno.build.os !== "linux" || navigator.hardwareConcurrency === 1,
  async fn() {
    const most = navigator.hardwareConcurrency, places = new Map<string, string>();
    const x = tf.scalar(1), captured = backend.capture([x], ([x]) => [tf.neg(x)]);
    const allowed = (file: string) => /Cpus_allowed_list:\t(.*)/.exec(file)![1];
    const newThreads = () => {
      const added: string[] = [];
      for (const { name: thread } of Deno.readDirSync("/proc/self/task")) {
        const status = Deno.readTextFileSync(`/proc/self/task/${thread}/status`);
        if (places.has(thread) || !status.startsWith("Name:\ttf_Compute\n")) continue;
        places.set(thread, allowed(status));
        added.push(places.get(thread)!);
      }
      return added;
    };
    const placesOf = async (interOp: number) => {
      tf.dispose(await captured.run([x], { threads: { intraOp: 1, interOp } }));
      return newThreads();
    };
    newThreads(); // of tests before, which run in the same process
    const all = allowed(Deno.readTextFileSync("/proc/self/status"));
    assert.ok((await placesOf(1)).every((places) => places === all));
    const each = await placesOf(most);
    assert.equal(new Set(each).size, most, each.join());
    assert.ok(each.every((processor) => /^\d+$/.test(processor)), each.join());
    if (most > 2) assert.deepEqual(await placesOf(most - 1), Array(most - 1).fill(all));
    captured.dispose();
    x.dispose();
  },
});

Deno.test("an error in a captured function names the layer, at the capture and when it runs", async () => {
  await withoutLeaks(async () => {
    const x = tf.ones([2, 3]), w = tf.ones([5, 4]);
    const product = (x: tf.Tensor) =>
      tf.tidy("h.0", () => {
        const attributes = [
          attr.type("T", DataType.float),
          attr.bool("transpose_a", false),
          attr.bool("transpose_b", false),
        ];
        return backend.execute("MatMul", attributes, [x, w]);
      });
    assert.throws(() => backend.capture([x], ([x]) => product(x)), /h\.0\/MatMul/);
    const good = tf.ones([2, 5]);
    const captured = backend.capture([good], ([x]) => product(x));
    await assert.rejects(captured.run([x]), /h\.0\/MatMul/);
    tf.dispose([...await captured.run([good]), x, w, good]);
    captured.dispose();
  });
});

Deno.test("a capture computes nothing, so reading inside it is refused", async () => {
  await withoutLeaks(() => {
    const x = tf.ones([2]);
    assert.throws(() => backend.capture([x], ([x]) => [tf.scalar(tf.square(x).dataSync()[0])]), /inside a capture/);
    assert.throws(() =>
      backend.capture([x], ([x]) => {
        backend.capture([x], ([y]) => [y]);
        return [x];
      }), /inside a capture/);
    assert.equal(binding.isCapturing, false);
    x.dispose();
  });
});

Deno.test("TensorFlow's versions of GPT-2's operations agree with the plain ones", async () => {
  await withoutLeaks(() => {
    tf.tidy(() => {
      const [B, T, H, D, S] = [3, 4, 2, 32, 16]; // wide enough for several parts
      const random = (shape: number[], seed: number) => tf.randomNormal(shape, 0, 1, "float32", seed);
      const x = random([B * T, D], 1) as tf.Tensor2D,
        ids = tf.tensor1d(Array.from({ length: B * T }, (_, i) => B * T - 1 - i), "int32");
      const same = (name: string, a: tf.Tensor, b: tf.Tensor, tolerance = 1e-5) => {
        assert.deepEqual(a.shape, b.shape, name);
        assertClose(Array.from(a.dataSync()), Array.from(b.dataSync()), tolerance, name);
      };
      same("embed", ops.embed(x, ids), plainOps.embed(x, ids));
      const gain = random([D], 2) as tf.Tensor1D, bias = random([D], 3) as tf.Tensor1D;
      same("layerNorm", ops.layerNorm(x, gain, bias, 1e-5), plainOps.layerNorm(x, gain, bias, 1e-5));
      for (const activation of ["none", "gelu_new"] as const) {
        const options = { name: "test", activation, dtype: "float32" } as const;
        const weight = random([D, 3 * D], 4) as tf.Tensor2D, offset = random([3 * D], 5) as tf.Tensor1D;
        const layer = ops.linear(weight.clone(), offset.clone(), options); // takes over what it is made of
        same("linear", layer.apply(x), plainOps.linear(weight, offset, options).apply(x));
      }
      const table = random([71, D], 6) as tf.Tensor2D, head = { name: "head", dtype: "float32" } as const;
      const logits = ops.head(table, head).apply(x), whole = plainOps.head(table, head).apply(x);
      assert.equal(logits.length, backend.sideBySide);
      same("head", joinColumns(logits), whole[0]);
      same("pick", ops.pick(x, ids), plainOps.pick(x, ids), 0);
      same("argMax", ops.argMax(logits), plainOps.argMax(whole), 0);
      const int = (values: number[], ...shape: number[]) => tf.tensor(values, shape, "int32");
      const count = [4, 1, 2], rows = count.flatMap((n, row) => Array(n).fill(row)), columns = [0, 1, 2, 3, 0, 0, 1];
      const starts = int(Array.from({ length: B * H }, (_, i) => i * S), B, H) as tf.Tensor2D;
      const common = { slots: tf.range(0, S, 1, "int32"), rowStarts: [starts] };
      const rectangle = { // of the third row's cells, the last two are nobody's
        tokens: int([0, 1, 2, 3, 4, 0, 0, 0, 5, 6, 0, 0], B, T) as tf.Tensor2D,
        rows: int(rows, 7) as tf.Tensor1D,
        columns: int(columns, 7) as tf.Tensor1D,
      };
      const ragged: Omit<BucketInputs, "caches"> = {
        ...common,
        positions: int([5, 6, 7, 8, 0, 3, 4], 7) as tf.Tensor1D,
        rectangle,
      };
      const single: Omit<BucketInputs, "caches"> = {
        ...common,
        positions: int([5, 0, 15], B) as tf.Tensor1D,
        rectangle: null,
      };
      for (const [name, bucket] of Object.entries({ ragged, single })) {
        const [n] = bucket.positions.shape, qkv = random([n, 3 * D], 7) as tf.Tensor2D;
        const [keys, values] = [8, 9].map((seed) => random([B, H, S, D / H], seed) as tf.Tensor4D);
        const whole = tf.reshape(tf.stack([keys, values]), [2, -1, D / H]);
        const expected = plainOps.attention({ ...bucket, caches: [[keys, values]] }, 0, rows.length).apply(qkv, 0);
        const actual = ops.attention({ ...bucket, caches: [[whole]] }, 0, rows.length).apply(qkv, 0);
        same(`attention, ${name}`, actual.attended, expected.attended);
        const written = tf.reshape(tf.stack([...expected.made]), whole.shape);
        same(`keys and values in place, ${name}`, whole, written, 0);
      }
    });
  });
});

Deno.test({
  name: "steps of few tokens are padded to as many rows as are multiplied fastest, and the padding goes again",
  ignore: !isAmd(),
  async fn() {
    for (const [modelSize, padded] of [[1e8, 5], [1e9, 1]]) { // of the larger one no packed copies are kept
      const ids = tf.tensor1d([7], "int32");
      const captured = backend.capture([ids], ([ids]) => {
        const padding = ops.rowPadding(ids as tf.Tensor1D, { dtype: "float32", modelSize });
        const added = padding.add(tf.reshape(tf.cast(ids, "float32"), [-1, 1]));
        return [added, padding.remove(added)];
      }, { packs: true });
      for (const count of [1, 2, 5, 6]) {
        const fed = tf.range(1, count + 1, 1, "int32");
        const [added, removed] = await captured.run([fed]), numbers = [...fed.dataSync()];
        assert.deepEqual([...added.dataSync()], [...numbers, ...Array(Math.max(0, padded - count)).fill(0)]);
        assert.deepEqual([removed.shape, [...removed.dataSync()]], [[count, 1], numbers]);
        tf.dispose([fed, added, removed]);
      }
      captured.dispose();
      ids.dispose();
    }
  },
});

Deno.test("a program that used TensorFlow ends cleanly and leaves stderr empty", async () => {
  const program = `
    import * as tf from "@tensorflow/tfjs";
    import { useBackend } from "${new URL("../lib/backend/select.ts", import.meta.url)}";
    await useBackend("tensorflow");
    console.log(tf.sum(tf.ones([1000])).dataSync()[0]);`;
  const output = await new Deno.Command(Deno.execPath(), {
    args: ["eval", program],
    cwd: new URL("..", import.meta.url),
  }).output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  assert.deepEqual([output.code, output.signal, decode(output.stdout), decode(output.stderr)], [0, null, "1000", ""]);
});
