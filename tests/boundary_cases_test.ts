import assert from "node:assert/strict";
import { TensorflowBinding } from "../lib/tensorflow/capi/binding.ts";
import { ensureLibtensorflow } from "../lib/tensorflow/install/install.ts";
import { Library } from "../lib/tensorflow/capi/library.ts";
import { cases, microseconds } from "../lib/bench/peers/boundary/cases.mjs";

Deno.test("what the boundary benchmark times works, and frees what it makes", async () => {
  const binding = new TensorflowBinding(new Library(await ensureLibtensorflow()), { intraOp: 1, interOp: 1 });
  for (const [name, prepare] of Object.entries(cases)) {
    const run = prepare(binding), before = binding.getNumOfTensors();
    assert.ok(microseconds(run, 3) > 0, name);
    assert.equal(binding.getNumOfTensors(), before, name);
  }
});
