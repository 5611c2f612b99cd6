/** tfjs-node's native binding in Node.js: answers each line `{"name", "turns"}` with the microseconds of a turn. */

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { cases, microseconds } from "./cases.mjs";

const binding = createRequire(import.meta.url)(process.argv[2]);
const ready = {};
console.log(JSON.stringify(process.version));
for await (const line of createInterface({ input: process.stdin })) {
  const { name, turns } = JSON.parse(line);
  console.log(JSON.stringify(microseconds(ready[name] ??= cases[name](binding), turns)));
}
