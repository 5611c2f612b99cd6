import assert from "node:assert/strict";
import type { Attribute } from "../lib/tensorflow/capi/attributes.ts";
import { TensorflowBinding } from "../lib/tensorflow/capi/binding.ts";
import { ensureLibtensorflow } from "../lib/tensorflow/install/install.ts";
import { Library } from "../lib/tensorflow/capi/library.ts";
import { runPublishedTests } from "./conformance/suite.ts";

const library = new Library(await ensureLibtensorflow()), threads = { intraOp: 2, interOp: 1 };

Deno.test("tfjs-core's and tfjs-node's own tests pass on this binding", async () => {
  const { counts, failures, unknownIgnored } = await runPublishedTests(new TensorflowBinding(library, threads));
  assert.deepEqual(failures, []);
  assert.deepEqual(unknownIgnored, []);
  assert.ok(counts["tfjs-core"].passed > 3800 && counts["tfjs-node"].passed > 120, JSON.stringify(counts));
});

Deno.test("and they fail on one that computes something else", async () => {
  class Wrong extends TensorflowBinding {
    override executeOp(op: string, attributes: readonly Attribute[], inputs: readonly number[], count: number) {
      return super.executeOp(op === "Cos" ? "Sin" : op, attributes, inputs, count);
    }
  }
  const { counts, failures } = await runPublishedTests(new Wrong(library, threads), { filter: "cos test-tensorflow" });
  assert.ok(failures.length === 3 && counts["tfjs-core"].failed === failures.length);
});
