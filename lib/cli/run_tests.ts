/** `deno task test`: every check of the project, with one count at the end. */

import { fileURLToPath } from "node:url";
import { ensureLibtensorflow } from "../tensorflow/install/install.ts";
import { print } from "../util/print.ts";
import { run, userPath } from "./command.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

await run({
  name: "test",
  summary: "Runs the tests, the examples in the documentation and, at reduced sizes, every notebook.",
  words: "[FILE…]",
  flags: {
    filter: { type: "string", value: "TEXT", help: "only tests whose name has this in it" },
    full: { type: "boolean", help: "every case of the tests that otherwise run a sample" },
  },
}, async ({ filter, full }, files) => {
  if (full) Deno.env.set("OMNIBUS_FULL", "1"); // where the tests look
  await ensureLibtensorflow(); // before the tests, so that they need no time limit for it
  const args = ["test", "--allow-all", ...filter ? [`--filter=${filter}`] : []];
  const everything = files.length === 0;
  const counts = [await count([...args, ...everything ? ["tests/"] : files.map(userPath)])];
  if (everything && !filter) {
    counts.push(await count([...args, "--doc", "lib/"]));
    counts.push(await count(["run", "-A", "lib/cli/notebooks.ts", "--quick"]));
  }
  const passed = sum(counts.map((c) => c.passed)), failed = sum(counts.map((c) => c.failed));
  console.log(`\n${passed} passed, ${failed} failed`);
  if (failed) Deno.exit(1);
});

/** Runs Deno, passing its output on, and reads the numbers in its last line, `… | 12 passed | 1 failed`. */
async function count(args: string[]): Promise<{ passed: number; failed: number }> {
  const child = new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stdout: "piped", env: { NO_COLOR: "1" } }).spawn();
  let tail = "";
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    print(text);
    tail = (tail + text).slice(-10_000);
  }
  const { success } = await child.status;
  const number = (what: string) => Number([...tail.matchAll(new RegExp(`(\\d+) ${what}`, "g"))].at(-1)?.[1] ?? 0);
  const passed = number("passed"), failed = number("failed");
  return { passed, failed: success ? failed : Math.max(1, failed) }; // what did not compile has no count
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, value) => total + value, 0);
}
