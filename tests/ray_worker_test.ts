/** How an actor looks after its worker process. It takes Python, and no Ray. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { runs } from "./_support/programs.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const ignore = !await runs("python3", "-c", "import sys; sys.exit(sys.version_info < (3, 11))");
const needs = ignore ? " [skipped: there is no Python 3.11]" : "";

/** Runs Python with `Worker`, `echo` (a command), and `lines` (requests with these prompts); gives what it prints, as JSON. */
async function python(code: string): Promise<unknown> {
  const begin = `
import json, os, signal, sys, threading
sys.path.insert(0, "lib/batch/ray")
from worker import Worker
echo = [sys.executable, "tests/_support/echo_worker.py", "0"]
lines = lambda prompts: [json.dumps({"body": {"prompt": one}}).encode() for one in prompts]
text = lambda result: result["error"]["code"] if result["error"] else result["response"]["body"]["choices"][0]["text"]
`;
  const { code: exit, stdout, stderr } = await new Deno.Command("python3", { args: ["-Bc", begin + code], cwd: root })
    .output();
  assert.equal(exit, 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test({
  name: `requests that kill their worker are found and given up, all others answered, and few are lost with it${needs}`,
  ignore,
  async fn() {
    const [texts, lost] = await python(`
prompts = ["poison" if i in (0, 37, 38, 299) else f"p{i}" for i in range(300)]
worker = Worker(echo, 16)
results = worker.answer(lines(prompts)) + worker.answer(lines(["after"]))
print(json.dumps([list(map(text, results)), worker.lost]))`) as [string[], number];
    const expected = Array.from({ length: 300 }, (_, i) => [0, 37, 38, 299].includes(i) ? "worker_died" : `P${i}`);
    assert.deepEqual(texts, [...expected, "AFTER"]);
    assert.ok(lost >= 4 * 3 && lost < 4 * 16 * 10, `${lost} requests lost`); // at most a window for each halving
  },
});

Deno.test({
  name: `two who ask a worker at once get what each gets alone, though both have requests that kill it${needs}`,
  ignore,
  async fn() {
    const right = await python(`
from concurrent.futures import ThreadPoolExecutor
worker, results = Worker(echo, 16), {}
def ask(block):
    prompts = ["poison" if i == 11 * block else f"{block}/{i}" for i in range(60)]
    expected = ["worker_died" if one == "poison" else one.upper() for one in prompts]
    return [text(one) for one in worker.answer(lines(prompts))] == expected
with ThreadPoolExecutor(2) as two:
    print(json.dumps(list(two.map(ask, range(4)))))`);
    assert.deepEqual(right, Array(4).fill(true));
  },
});

Deno.test({
  name: `a worker that is killed again and again from outside answers everything in the end${needs}`,
  ignore,
  async fn() {
    const [right, lost, processes] = await python(`
worker, seen = Worker([*echo[:2], "0.001"], 16), set()
def hunt():
    while len(seen) < 5:
        process = worker.process
        if process and process.child.pid not in seen and process.asked > 1:
            seen.add(process.child.pid)
            process.child.send_signal(signal.SIGKILL)
threading.Thread(target=hunt, daemon=True).start()
prompts = [f"p{i}" for i in range(400)]
print(json.dumps([[text(one) for one in worker.answer(lines(prompts))] == [f"P{i}" for i in range(400)], worker.lost, len(seen)]))`) as [
      boolean,
      number,
      number,
    ];
    assert.deepEqual([right, processes], [true, 5]);
    assert.ok(lost <= 5 * 16, `${lost} requests lost`);
  },
});

Deno.test({
  name:
    `a worker that does not come up or talks nonsense is an error that says why, and lines larger than a pipe do not block${needs}`,
  ignore,
  async fn() {
    const [said, length] = await python(`
said = []
for code in "import sys; sys.exit('no such model')", "print('hello', flush=True); input(); input()":
    try:
        Worker([sys.executable, "-c", code], 4).answer(lines(["a", "b"]))
    except RuntimeError as error:
        said.append(str(error))
large = Worker(echo, 16).answer(lines(["x" * 300_000] * 40))
print(json.dumps([said, sum(len(text(one)) for one in large)]))`) as [string[], number];
    const silent = "it ended without a word";
    assert.deepEqual(said, ["no such model", silent].map((why) => `The worker does not start: ${why}`));
    assert.equal(length, 40 * 300_000);
  },
});
