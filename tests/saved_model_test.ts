import assert from "node:assert/strict";
import { join } from "node:path";
import { attr, AttributeType, DataType } from "../lib/tensorflow/capi/attributes.ts";
import { TensorflowBinding } from "../lib/tensorflow/capi/binding.ts";
import { ensureLibtensorflow } from "../lib/tensorflow/install/install.ts";
import { Library } from "../lib/tensorflow/capi/library.ts";
import { type Model, type Node, writeSavedModel } from "./_support/saved_models.ts";

const binding = new TensorflowBinding(new Library(await ensureLibtensorflow()), { intraOp: 2, interOp: 1 });
const { float, string, resource } = DataType;

/** x [N, 2] -> y = x·w [N, 3], and the name that the model was given. Its weights are in a checkpoint beside it. */
function linearModel(): Model {
  const constant = (name: string, value: string): Node => ({
    name,
    op: "Const",
    value: { dtype: string, shape: [1], value },
  });
  const node = (name: string, op: string, inputs: string[], ...attributes: Node["attributes"] & object): Node => (
    { name, op, inputs, attributes }
  );
  const dtype = attr.type("dtype", float), anyShape = { name: "shape", type: AttributeType.shape, value: null };
  return {
    nodes: [
      node("x", "Placeholder", [], dtype, anyShape),
      node("w", "VarHandleOp", [], dtype, attr.shape("shape", [2, 3]), attr.string("shared_name", "w")),
      node("w/read", "ReadVariableOp", ["w"], dtype),
      node(
        "y",
        "MatMul",
        ["x", "w/read"],
        attr.type("T", float),
        attr.bool("transpose_a", false),
        attr.bool("transpose_b", false),
      ),
      constant("title", "a linear model"),
      { name: "file", op: "Const", value: { dtype: string, shape: [], value: "" } },
      constant("names", "weight"),
      constant("slices", ""),
      node("restore", "RestoreV2", ["file", "names", "slices"], attr.type("dtypes", [float])),
      node("assign", "AssignVariableOp", ["w", "restore"], dtype),
      node("restore_all", "NoOp", ["^assign"]),
      node("save", "Identity", ["file"], attr.type("T", string)),
    ],
    signatures: {
      serving_default: { inputs: { x: ["x:0", float] }, outputs: { y: ["y:0", float], title: ["title:0", string] } },
    },
    saver: { filename: "file:0", save: "save:0", restore: "restore_all" },
  };
}

/** Writes the model and, with TensorFlow's own operation, its checkpoint. */
async function writeLinearModel(weights: number[]): Promise<string> {
  const folder = await Deno.makeTempDir(), text = (value: string) => new TextEncoder().encode(value);
  await writeSavedModel(folder, linearModel());
  await Deno.mkdir(join(folder, "variables"));
  const inputs = [
    binding.createTensor([], string, [text(join(folder, "variables", "variables"))]),
    binding.createTensor([1], string, [text("weight")]),
    binding.createTensor([1], string, [text("")]),
    binding.createTensor([2, 3], float, weights),
  ];
  binding.executeOp("SaveV2", [attr.type("dtypes", [float])], inputs, 0);
  for (const id of inputs) binding.deleteTensor(id);
  return folder;
}

Deno.test("a saved model runs with the weights of its checkpoint, and is gone when it is deleted", async () => {
  const folder = await writeLinearModel([1, 2, 3, 10, 20, 30]), tensors = binding.getNumOfTensors();
  const model = binding.loadSavedModel(folder, "serve");
  await Deno.remove(folder, { recursive: true }); // it needs no files any more
  assert.equal(binding.getNumOfSavedModels(), 1);
  const x = binding.createTensor([2, 2], float, [1, 0, 1, 1]);
  const [y, title] = binding.runSavedModel(model, [x], "x:0", "y:0,title");
  assert.deepEqual([y.shape, y.dtype, title.shape, title.dtype], [[2, 3], float, [1], string]);
  assert.deepEqual(binding.tensorDataSync(y.id), new Float32Array([1, 2, 3, 11, 22, 33]));
  assert.deepEqual(binding.tensorDataSync(title.id), [new TextEncoder().encode("a linear model")]);
  const [w] = binding.runSavedModel(model, [], "", "w"); // a resource can be fetched, too
  assert.equal(w.dtype, resource);
  for (const id of [x, y.id, title.id, w.id]) binding.deleteTensor(id);
  binding.deleteSavedModel(model);
  assert.deepEqual([binding.getNumOfSavedModels(), binding.getNumOfTensors()], [0, tensors]);
});

Deno.test("two models keep their weights apart", async () => {
  const folders = [await writeLinearModel([1, 1, 1, 1, 1, 1]), await writeLinearModel([2, 2, 2, 2, 2, 2])];
  const models = folders.map((folder) => binding.loadSavedModel(folder, "serve"));
  const x = binding.createTensor([1, 2], float, [1, 1]);
  const results = models.map((model) => {
    const [{ id }] = binding.runSavedModel(model, [x], "x", "y"), values = binding.tensorDataSync(id) as Float32Array;
    binding.deleteTensor(id);
    return values[0];
  });
  assert.deepEqual(results, [2, 4]);
  binding.deleteTensor(x);
  for (const model of models) binding.deleteSavedModel(model);
  for (const folder of folders) await Deno.remove(folder, { recursive: true });
});

Deno.test("what is wrong with a saved model, or with a call of it, is an error that says so", async () => {
  const folder = await writeLinearModel([0, 0, 0, 0, 0, 0]), model = binding.loadSavedModel(folder, "serve");
  const x = binding.createTensor([1, 2], float, [1, 1]), wide = binding.createTensor([1, 5], float, [1, 1, 1, 1, 1]);
  const cases: [() => unknown, { name: string; message: RegExp }][] = [
    [() => binding.loadSavedModel("/nowhere", "serve"), {
      name: "TensorflowError",
      message: /Could not find SavedModel.*\/nowhere/,
    }],
    [() => binding.loadSavedModel(folder, "serve,gpu"), {
      name: "TensorflowError",
      message: /tags.*serve.*gpu|gpu.*serve/,
    }],
    [() => binding.runSavedModel(model, [x], "x,z", "y"), {
      name: "RangeError",
      message: /input op names \(2\) .* input tensors \(1\)/,
    }],
    [() => binding.runSavedModel(model, [x], "z", "y"), { name: "ReferenceError", message: /Cannot find "z"/ }],
    [() => binding.runSavedModel(model, [x], "x", "y:1"), { name: "RangeError", message: /output 1 of "y".*it has 1/ }],
    [() => binding.runSavedModel(model, [wide], "x", "y"), {
      name: "TensorflowError",
      message: /Matrix size-incompatible/,
    }],
    [() => binding.runSavedModel(model, [], "", "y"), {
      name: "TensorflowError",
      message: /must feed a value for placeholder.*x/,
    }],
    [() => binding.runSavedModel(99, [x], "x", "y"), {
      name: "ReferenceError",
      message: /saved model 99: it was deleted, or never loaded/,
    }],
    [() => binding.deleteSavedModel(99), { name: "ReferenceError", message: /saved model 99/ }],
  ];
  for (const [call, expected] of cases) assert.throws(call, expected);
  const [y] = binding.runSavedModel(model, [x], "x", "y");
  assert.deepEqual(y.shape, [1, 3]);
  for (const id of [x, wide, y.id]) binding.deleteTensor(id);
  binding.deleteSavedModel(model);
  await Deno.writeFile(join(folder, "saved_model.pb"), new Uint8Array([1, 2, 3]));
  assert.throws(() => binding.loadSavedModel(folder, "serve"), { name: "TensorflowError" });
  await Deno.remove(folder, { recursive: true });
  assert.deepEqual([binding.getNumOfSavedModels(), binding.getNumOfTensors()], [0, 0]);
});
