/** tfjs as people use it, on this backend: training a layers model, saving it, images, TensorBoard, SavedModels. */

import assert from "node:assert/strict";
import { join } from "node:path";
import * as tf from "@tensorflow/tfjs";
import { useTensorflow } from "../lib/tensorflow/mod.ts";
import { writeTestModels } from "./conformance/models.ts";

const backend = await useTensorflow({ threads: 2 }), { node } = backend;

Deno.test("a layers model learns, is saved to a file, and answers the same when it is loaded", async () => {
  const model = tf.sequential();
  model.add(
    tf.layers.dense({
      units: 16,
      activation: "tanh",
      inputShape: [2],
      kernelInitializer: tf.initializers.glorotUniform({ seed: 1 }),
    }),
  );
  model.add(
    tf.layers.dense({ units: 1, activation: "sigmoid", kernelInitializer: tf.initializers.glorotUniform({ seed: 2 }) }),
  );
  model.compile({ optimizer: tf.train.adam(0.05), loss: "binaryCrossentropy", metrics: ["accuracy"] });
  const xs = tf.tensor2d([[0, 0], [0, 1], [1, 0], [1, 1]]), ys = tf.tensor2d([[0], [1], [1], [0]]);
  const { history } = await model.fit(xs, ys, { epochs: 150, verbose: 0, shuffle: false });
  const [first, last] = [history.loss[0], history.loss.at(-1)!] as number[];
  assert.ok(first > 0.5 && last < 0.1, `loss ${first} -> ${last}`);
  assert.equal(history.acc.at(-1), 1);

  const folder = await Deno.makeTempDir();
  await model.save(`file://${folder}`);
  const loaded = await tf.loadLayersModel(`file://${join(folder, "model.json")}`);
  assert.deepEqual(await (loaded.predict(xs) as tf.Tensor).array(), await (model.predict(xs) as tf.Tensor).array());
  await Deno.remove(folder, { recursive: true });
});

Deno.test("an image survives PNG, is still recognisable after JPEG, and is read from GIF and BMP", async () => {
  const image = tf.tidy(() => tf.cast(tf.reshape(tf.range(0, 192), [8, 8, 3]), "int32")) as tf.Tensor3D;
  const decode = async (bytes: Uint8Array) => Array.from(await node.decodeImage(bytes).data(), Number);
  const original = Array.from(await image.data());
  assert.deepEqual(await decode(await node.encodePng(image)), original);
  const jpeg = await decode(await node.encodeJpeg(image));
  assert.ok(
    jpeg.every((value, i) => Math.abs(value - original[i]) < 20) && jpeg.some((value, i) => value !== original[i]),
  );
  const red = [255, 0, 0], gif = "R0lGODdhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs=";
  const bmp = "Qk06AAAAAAAAADYAAAAoAAAAAQAAAAEAAAABABgAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAD/AA==";
  for (const base64 of [gif, bmp]) {
    assert.deepEqual(await decode(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))), red);
  }
  assert.throws(() => node.decodeImage(new Uint8Array([1, 2, 3])), /[Uu]nsupported|Expected image/);
});

Deno.test("TensorBoard's files hold what was written", async () => {
  const folder = await Deno.makeTempDir(), writer = node.summaryFileWriter(folder);
  writer.scalar("the loss of it", 0.25, 1);
  writer.histogram("of one value", tf.ones([5]), 1, 5);
  writer.flush();
  const [file] = [...Deno.readDirSync(folder)],
    text = new TextDecoder("latin1").decode(await Deno.readFile(join(folder, file.name)));
  assert.ok(text.includes("the loss of it") && text.includes("of one value") && text.includes("brain.Event:2"));
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a SavedModel runs through tfjs-node's own interface", async () => {
  const folder = await Deno.makeTempDir();
  await writeTestModels(folder);
  const path = join(folder, "test_objects", "saved_model", "times_three_float");
  assert.deepEqual((await node.getMetaGraphsFromSavedModel(path))[0].tags, ["serve"]);
  const model = await node.loadSavedModel(path);
  assert.deepEqual(await (model.predict(tf.tensor1d([1, 2])) as tf.Tensor).array(), [3, 6]);
  assert.equal(node.getNumOfSavedModels(), 1);
  model.dispose();
  assert.equal(node.getNumOfSavedModels(), 0);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("operations that TensorFlow has left behind since tfjs-node was made still work", () => {
  tf.tidy(() => {
    assert.deepEqual(tf.round(tf.tensor1d([-12345678, 7], "int32")).arraySync(), [-12345678, 7]);
    assert.deepEqual(tf.round(tf.tensor1d([1.5, 2.5, -0.4])).arraySync(), [2, 2, -0]);
  });
});
