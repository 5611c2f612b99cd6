/** `deno task conformance`: tfjs-core's and tfjs-node's own tests on the tensorflow backend. */

import { runPublishedTests } from "./suite.ts";
import { IGNORED } from "./ignored.ts";
import { TensorflowBinding } from "../../lib/tensorflow/capi/binding.ts";
import { ensureLibtensorflow } from "../../lib/tensorflow/install/install.ts";
import { Library } from "../../lib/tensorflow/capi/library.ts";
import { run } from "../../lib/cli/command.ts";
import { table } from "../../lib/util/table.ts";

await run({
  name: "conformance",
  summary: "Runs tfjs-core's own kernel tests, and tfjs-node's, on the tensorflow backend.",
  flags: {
    filter: { type: "string", value: "TEXT", help: "only specs whose name has this in it" },
    all: { type: "boolean", help: "also the specs that tfjs-node ignores, most of which fail" },
  },
}, async ({ filter, all }) => {
  const library = new Library(await ensureLibtensorflow());
  const binding = new TensorflowBinding(library, { intraOp: navigator.hardwareConcurrency, interOp: 1 });
  const { counts, failures, unknownIgnored } = await runPublishedTests(binding, { filter, all });
  for (const { spec, message } of failures) {
    console.log(`FAILED  ${spec}\n        ${message.replaceAll("\n", "\n        ")}\n`);
  }
  const rows = Object.entries(counts).map((
    [author, { specs, passed, failed, ignoredByTfjsNode, ignoredByUs, pending }],
  ) => [author, ...[specs, passed, failed, ignoredByTfjsNode, ignoredByUs, pending].map(String)]);
  console.log(
    table([["tests of", "specs", "passed", "failed", "tfjs-node ignores", "we ignore", "not for here"], ...rows]),
  );
  console.log("\nWe ignore:");
  for (const [spec, cause] of Object.entries(IGNORED)) console.log(`  ${spec}\n    ${cause}.`);
  for (const spec of unknownIgnored) console.log(`\nThere is no such spec to ignore: ${spec}`);
  if (failures.length || unknownIgnored.length) Deno.exit(1);
});
