/**
 * Random calls of the binding, most of which make no sense: wrong numbers, kinds, dtypes and shapes of inputs, wrong
 * attributes, tensors that are gone, unknown operations. Prints each before it is made, as the last line of a crash, and
 * in the end what came of them: `deno run -A tests/_support/bad_calls.ts SEED CALLS`.
 */

import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { type Attribute, AttributeType, DataType } from "../../lib/tensorflow/capi/attributes.ts";
import { TensorflowBinding } from "../../lib/tensorflow/capi/binding.ts";
import { ensureLibtensorflow } from "../../lib/tensorflow/install/install.ts";
import { Library, TensorflowError } from "../../lib/tensorflow/capi/library.ts";
import { type OpDefinition, OpDefinitions } from "../../lib/tensorflow/capi/op_definitions.ts";
import { print } from "../../lib/util/print.ts";
import { seededRandom } from "../../lib/util/random.ts";

const [seed, calls] = Deno.args.map(Number);
const random = seededRandom(seed);
const library = new Library(await ensureLibtensorflow());
const binding = new TensorflowBinding(library, { intraOp: 1, interOp: 1 });
const definitions = new OpDefinitions(library.c, library.newStatus());
const ops = await opsOfKernels();
const dtypes = Object.values(DataType);
const alive: number[] = [];

const int = (below: number) => Math.floor(random() * below);
const pick = <T>(values: readonly T[]): T => values[int(values.length)];
const chance = (probability: number) => random() < probability;
const several = <T>(most: number, make: () => T) => Array.from({ length: int(most + 1) }, make);

/** Values that are hardly ever right. */
// deno-lint-ignore no-explicit-any -- that is the point
const nonsense = (): any =>
  pick<unknown>([
    ...[null, undefined, NaN, Infinity, -1, 0.5, 2 ** 31, 2 ** 53, -(2 ** 63), 10n ** 30n, "", "x\0y", "ü".repeat(9)],
    ...[true, [], [[]], [null], {}, () => 1, Symbol.iterator, new Float32Array(3), new Uint8Array(), new Date(NaN)],
  ]);

const outcomes: Record<string, number> = {};
for (let i = 0; i < calls; i++) {
  const [name, call] = pick([
    create,
    create,
    execute,
    execute,
    execute,
    execute,
    execute,
    release,
    read,
    savedModel,
    captureIt,
  ])();
  print(`${i} ${name}\n`, Deno.stderr);
  const outcome = outcomeOf(call);
  outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
}
for (const id of alive) binding.deleteTensor(id);
const one = binding.createTensor([2], DataType.float, [1, 2]);
const [square] = binding.executeOp(
  "Square",
  [{ name: "T", type: AttributeType.type, value: DataType.float }],
  [one],
  1,
);
const stillWorks = [...binding.tensorDataSync(square.id) as Float32Array];
for (const id of [one, square.id]) binding.deleteTensor(id);
console.log(JSON.stringify({ outcomes, stillWorks, left: binding.getNumOfTensors() }));

/** The kind of error, or `done`. */
function outcomeOf(call: () => unknown): string {
  try {
    call();
    return "done";
  } catch (error) {
    if (error instanceof TensorflowError && error.message) return "TensorflowError";
    if ([TypeError, RangeError, ReferenceError, SyntaxError].some((kind) => error instanceof kind)) {
      return (error as Error).name;
    }
    return `unexpected: ${error}`;
  }
}

type Call = [name: string, call: () => unknown];

function create(): Call {
  const shape = chance(0.2) ? nonsense() : several(5, () => chance(0.05) ? nonsense() : int(4));
  const dtype = chance(0.1) ? nonsense() : pick(dtypes);
  const count = Array.isArray(shape) ? Number(shape.reduce((a, b) => a * Number(typeof b === "symbol" ? 0 : b), 1)) : 0;
  const length = chance(0.8) && count < 1000 && count >= 0 ? count : int(9);
  const values = chance(0.1)
    ? nonsense()
    : dtype === DataType.string
    ? Array.from({ length }, () => new Uint8Array(int(50)))
    : Array.from({ length }, () => chance(0.02) ? nonsense() : pick([0, 1, -1, 1e30, NaN, 3]));
  return [`createTensor ${show([shape, dtype])}`, () => alive.push(binding.createTensor(shape, dtype, values))];
}

function execute(): Call {
  const op = chance(0.02) ? nonsense() : pick(ops);
  const known = typeof op === "string" && ops.includes(op) ? definitions.get(op) : undefined;
  const attributes = chance(0.02) ? nonsense() : attributesOf(known);
  const inputs = chance(0.02) ? nonsense() : inputsOf(known);
  const count = chance(0.1) ? nonsense() : chance(0.9) ? 1 : int(4);
  return [`executeOp ${show([op, attributes, inputs, count])}`, () => {
    for (const { id } of binding.executeOp(op, attributes, inputs, count)) {
      if (alive.length < 500) alive.push(id);
      else binding.deleteTensor(id);
    }
  }];
}

function release(): Call {
  const index = int(alive.length + 1), id = chance(0.3) ? nonsense() : alive[index];
  return [`deleteTensor ${show(id)}`, () => {
    binding.deleteTensor(id);
    alive.splice(index, 1);
  }];
}

function read(): Call {
  const id = chance(0.3) ? nonsense() : pick(alive);
  return [`tensorDataSync ${show(id)}`, () => binding.tensorDataSync(id)];
}

function savedModel(): Call {
  const [a, b, c] = [nonsense(), nonsense(), nonsense()];
  return pick<Call>([
    [`loadSavedModel ${show([a, b])}`, () => binding.loadSavedModel(a, b)],
    [`runSavedModel ${show([a, b, c])}`, () => binding.runSavedModel(a, several(2, () => pick(alive)), b, c)],
    [`deleteSavedModel ${show(a)}`, () => binding.deleteSavedModel(a)],
  ]);
}

/** The same operations, recorded instead of run. */
function captureIt(): Call {
  const [name, call] = execute(), inputs = several(2, () => pick(alive));
  return [`capture ${show(inputs)} of ${name}`, () => {
    const before = alive.length;
    let standIns: number[] = [];
    try {
      binding.deleteFunction(binding.capture("bad", inputs, (given) => {
        standIns = given.map(({ id }) => id);
        alive.push(...standIns);
        call();
        return alive.slice(before);
      }, () => ""));
    } finally {
      for (const id of alive.splice(before)) binding.deleteTensor(id);
    }
  }];
}

/** About as many inputs as the operation takes. */
function inputsOf(definition?: OpDefinition): number[] {
  const count = definition && chance(0.9) ? definition.inputs.length : int(4);
  return Array.from({ length: count }, () => chance(0.03) ? nonsense() : pick(alive));
}

/** Most of the operation's attributes, most with values of the right kind. */
function attributesOf(definition?: OpDefinition): Attribute[] {
  const attributes = [...definition?.attributes ?? []].filter(() => chance(0.9)).map(([name, type]): Attribute => {
    const list = /list\((.*)\)/.exec(type)?.[1], kind = list ?? type;
    const value = () => chance(0.05) ? nonsense() : valueOf(kind);
    return {
      name: chance(0.01) ? nonsense() : name,
      type: chance(0.02) ? nonsense() : AttributeType[kind as "int"],
      value: list ? several(5, value) : value(),
    };
  });
  return chance(0.02) ? [...attributes, nonsense()] : attributes;
}

function valueOf(kind: string): unknown {
  switch (kind) {
    case "type":
      return chance(0.8) ? pick([DataType.float, DataType.int32]) : chance(0.9) ? pick(dtypes) : int(200) - 50;
    case "bool":
      return chance(0.5);
    case "int":
      return pick([0, 1, 2, 3, -1, -7, 1000, 2 ** 40]);
    case "float":
      return pick([0, 1, -1, 0.5, NaN, Infinity]);
    case "string":
      return pick(["SAME", "VALID", "EXPLICIT", "NHWC", "NCHW", "", "x", "bilinear", "ij,jk->ik"]);
    case "shape":
      return several(3, () => int(4) - 1);
  }
  return nonsense();
}

/** The operations that tfjs-node's kernels call. */
async function opsOfKernels(): Promise<string[]> {
  const index = createRequire(import.meta.url).resolve("@tensorflow/tfjs-node-gpu/dist/register_all_kernels.js");
  const folder = join(dirname(index), "kernels"), names = new Set<string>();
  for await (const { name } of Deno.readDir(folder)) {
    if (!name.endsWith(".js")) continue;
    const source = await Deno.readTextFile(join(folder, name));
    for (const [, op] of source.matchAll(/'([A-Z]\w+)'|tfjs_1\.([A-Z]\w+)/g)) if (op) names.add(op);
    names.add(name.replace(".js", ""));
  }
  return [...names].sort().filter((name) => outcomeOf(() => definitions.get(name)) === "done");
}

function show(value: unknown): string {
  return Deno.inspect(value, { depth: 4, compact: true, breakLength: Infinity, strAbbreviateSize: 60 });
}
