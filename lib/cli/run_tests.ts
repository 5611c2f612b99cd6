/** `deno task test`: every check of the project, with one count at the end. */

import { fileURLToPath } from "node:url";
import { ensureLibtensorflow } from "../tensorflow/install/install.ts";
import { print } from "../util/print.ts";
import { run, userPath } from "./command.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Tests that measure, and so have the machine to themselves. */
const ALONE = ["tests/plan_test.ts"];

/** Processes side by side, as far as there are cores. Each may use all cores for a moment, and a gigabyte or two. */
const SIDE_BY_SIDE = Math.min(4, navigator.hardwareConcurrency);

/**
 * How long a process may go on without a test of it ending: one that waits for what never comes is to fail, and not to keep all
 * others waiting. On a busy machine all of a file's tests may take several times as long.
 */
const MOST_MINUTES = 15, MOST_MINUTES_FULL = 240;

/** What one process of Deno found. */
interface Count {
  /** What it was run with. */
  args: string[];
  passed: number;
  failed: number;
}

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
  const test = ["test", "--allow-all", ...filter ? [`--filter=${filter}`] : []];
  const counts = files.length || filter
    ? await runAll([[...test, ...files.length ? files.map(userPath) : ["tests/"]]], 1)
    : await runEverything(test);
  const passed = sum(counts.map((c) => c.passed)), failed = sum(counts.map((c) => c.failed));
  const where = counts.filter((c) => c.failed).map(({ args }) => `deno ${args.join(" ")}\n`);
  console.log(`\n${where.join("")}${passed} passed, ${failed} failed`);
  if (failed) Deno.exit(1);
});

/** Each file of tests in a process of its own. Types are checked once, for all of them. */
async function runEverything(test: string[]): Promise<Count[]> {
  const files = Deno.readDirSync(`${ROOT}/tests`).map(({ name }) => `tests/${name}`);
  const tests = [...files].filter((name) => name.endsWith("_test.ts") && !ALONE.includes(name)).sort();
  const testOf = (file: string) => [...test, "--no-check", file];
  return [
    ...await runAll([["check", "--quiet", "lib/", "tests/"], ...ALONE.map(testOf)], 1),
    ...await runAll([
      [...test, "--doc", "lib/"],
      ...tests.map(testOf),
    ], SIDE_BY_SIDE),
  ];
}

/** Runs Deno with each of these arguments, so many at a time. What each says is printed in one piece, in their order. */
async function runAll(commands: string[][], width: number): Promise<Count[]> {
  const waiting = commands.entries(), started = commands.map(() => Promise.withResolvers<Running>());
  const takeTurns = async () => {
    for (const [i, args] of waiting) {
      const running = start(args);
      started[i].resolve(running);
      await running.status;
    }
  };
  const turns = Promise.all(Array.from({ length: width }, takeTurns)), counts: Count[] = [];
  for (const { promise } of started) counts.push(await report(await promise));
  await turns;
  return counts;
}

/** A process of Deno. What it says is kept until somebody listens. */
interface Running {
  args: string[];
  output: ReadableStream<string>;
  status: Promise<Deno.CommandStatus>;
}

function start(args: string[]): Running {
  const minutes = Deno.env.has("OMNIBUS_FULL") ? MOST_MINUTES_FULL : MOST_MINUTES;
  const over = new AbortController(), { signal } = over;
  const startTimer = () => setTimeout(() => over.abort(), 60_000 * minutes);
  let timer = startTimer();
  const command = { args, cwd: ROOT, env: { NO_COLOR: "1" }, stdout: "piped", stderr: "piped", signal } as const;
  const { stdout, stderr, status } = new Deno.Command(Deno.execPath(), command).spawn();
  const output = new ReadableStream<string>({
    async start(controller) {
      await Promise.all([stdout, stderr].map(async (stream) => {
        for await (const text of stream.pipeThrough(new TextDecoderStream(), { signal })) {
          if (/\b(ok|FAILED|ignored)\b/.test(text)) {
            clearTimeout(timer);
            timer = startTimer();
          }
          controller.enqueue(text);
        }
      })).catch((error) => {
        if (!signal.aborted) throw error;
        controller.enqueue(`\nEnded, as no test of it had ended for ${minutes} minutes: deno ${args.join(" ")}\n`);
      });
      clearTimeout(timer);
      controller.close();
    },
  });
  return { args, output, status };
}

/** Passes on what a process says, and reads the numbers in its last line, `… | 12 passed | 1 failed`. */
async function report({ args, output, status }: Running): Promise<Count> {
  let tail = "";
  for await (const text of output) {
    print(text);
    tail = (tail + text).slice(-10_000);
  }
  const { success } = await status;
  const number = (what: string) => Number([...tail.matchAll(new RegExp(`(\\d+) ${what}`, "g"))].at(-1)?.[1] ?? 0);
  const passed = number("passed"), failed = number("failed");
  return { args, passed, failed: success ? failed : Math.max(1, failed) }; // what did not compile has no count
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, value) => total + value, 0);
}
