/** Batches on Ray, with nodes that are made on this machine. Most run with a worker that needs no model. */

import assert from "node:assert/strict";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { readLines } from "../lib/batch/lines.ts";
import { rayPython } from "../lib/batch/ray/environment.ts";
import { seededRandom } from "../lib/util/random.ts";
import { batchLines, choicesById, differing, resultsIn } from "./_support/batch_lines.ts";

const root = fileURLToPath(new URL("..", import.meta.url)), full = Deno.env.has("OMNIBUS_FULL");
const python = await rayPython().catch(() => null);
const ignore = python === null;
const needs = ignore ? " [skipped: there is no Ray; `deno task setup --ray` installs it]" : "";

/** What lib/batch/ray/run.ts tells the driver, with the stand-in for a worker, which takes `pause` seconds a request. */
async function driverOptions(lines: readonly string[], nodes: number, { pause = 0, block = 512 } = {}) {
  const folder = await Deno.makeTempDir({ prefix: "omnibus-ray-" }), input = join(folder, "in.jsonl");
  await Deno.writeTextFile(input, lines.join("\n") + "\n");
  return {
    ...{ input, output: join(folder, "out"), settings: { model: 1 }, address: `local:${nodes}`, least: 0, most: 0 },
    ...{ cpus: 1, gpus: 0, patience: 1, window: 128, block, project: root, model: join(root, "models/small") },
    workers: [[python, join(root, "tests/_support/echo_worker.py"), `${pause}`]],
  };
}

function startDriver(options: unknown): Deno.ChildProcess {
  return new Deno.Command(python!, {
    args: [join(root, "lib/batch/ray/driver.py"), JSON.stringify(options)],
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function drive(options: unknown) {
  const { code, stdout, stderr } = await startDriver(options).output();
  const [said, complained] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, stdout: said, stderr: complained };
}

/** The shards' lines. */
async function outputOf(folder: string): Promise<string> {
  let text = "";
  for await (const { name } of Deno.readDir(folder)) {
    if (/^[^_.].*\.jsonl$/.test(name)) text += await Deno.readTextFile(join(folder, name));
  }
  return text;
}

const request = (id: string, prompt = id) =>
  JSON.stringify({ custom_id: id, method: "POST", url: "/v1/completions", body: { prompt } });

Deno.test({
  name:
    `wherever a file is cut into ranges, its lines are those that batch reads, and what cannot be run is refused at once${needs}`,
  ignore,
  async fn() {
    const text = `\uFEFFa\r\n\n \t\nb\n${"c".repeat(50)}\n\x0b\né\nlast`, data = new TextEncoder().encode(text);
    const code = `
import io, json, random, sys
sys.path.insert(0, "lib/batch/ray")
import pyarrow as pa
from lines import lines_between
data = sys.stdin.buffer.read()
def cut(at):
    return [line for ends in zip(at, at[1:]) for line in lines_between(pa.PythonFile(io.BytesIO(data), "r"), *ends)]
whole = cut([0, len(data)])
for seed in range(300):
    some = random.Random(seed)
    at = [0, *sorted(some.sample(range(1, len(data)), some.randint(1, 12))), len(data)]
    assert cut(at) == whole, at
print(json.dumps([line.decode() for _, line in whole]))`;
    const child = new Deno.Command(python!, { args: ["-Bc", code], cwd: root, stdin: "piped", stdout: "piped" })
      .spawn();
    const writer = child.stdin.getWriter();
    await writer.write(data);
    await writer.close();
    const read = await Array.fromAsync(readLines(new Blob([data]).stream()));
    const { stdout } = await child.output();
    assert.deepEqual(JSON.parse(new TextDecoder().decode(stdout)), read.map(({ text }) => text!.replace(/\r$/, "")));

    const options = await driverOptions([request("a")], 2);
    const input = join(options.output, "none.jsonl"), none = await drive({ ...options, input });
    assert.deepEqual([none.code, none.stderr], [2, `batch: --input names no file: ${input}.\n`]);
    const above = await drive({ ...options, input: join(options.output, "..") });
    assert.deepEqual([above.code, above.stderr.split(":")[1]], [2, " --output lies where --input finds its files"]);
    const onFile = await drive({ ...options, output: options.input });
    assert.deepEqual([onFile.code, onFile.stderr.split(":")[1]], [2, " --output must be a folder with --ray"]);
    const { code: many, stderr } = await drive({ ...options, least: 9 });
    assert.deepEqual([many, stderr.split(":")[1]], [2, " --min-actors can be at most 4"]);
    await Deno.mkdir(options.output);
    await Deno.writeTextFile(join(options.output, "foreign.jsonl"), "{}\n");
    const foreign = await drive(options);
    const path = join(options.output, "foreign.jsonl");
    assert.deepEqual([foreign.code, foreign.stderr], [
      2,
      `batch: ${path} holds no results of --ray: take another --output.\n`,
    ]);
  },
});

Deno.test({
  name: `a cluster that does not answer, or has no room for an actor, is one line and no end of waiting${needs}`,
  ignore,
  async fn() {
    const options = await driverOptions([request("a")], 1);
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 }), { port } = listener.addr;
    listener.close();
    const nobody = await drive({ ...options, address: `127.0.0.1:${port}` });
    const said = `batch: No Ray cluster answers at 127.0.0.1:${port}. --ray local:1 makes one on this machine.\n`;
    assert.deepEqual([nobody.code, nobody.stderr], [2, said]);
    const code = `
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()`;
    const cluster = new Deno.Command(python!, {
      ...{ args: ["-c", code], stdin: "piped", stdout: "piped", stderr: "null" },
    }).spawn();
    const reader = cluster.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const address = (await reader.read()).value!.trim();
    const small = await drive({ ...options, address, cpus: 3 });
    const full = "batch: No node of the cluster has the 3 cores and 0 GPUs of an actor free: lower --cpus-per-actor or";
    assert.deepEqual([small.code, small.stderr.split("\n").at(-2)], [2, `${full} --gpus-per-actor.`]);
    const workers = [[python, "-c", "import sys; sys.exit('no such model')"]];
    const broken = await drive({ ...options, address, workers });
    const why = "batch: The worker does not start: no such model";
    assert.deepEqual([broken.code, broken.stderr.split("\n").at(-2)], [1, why]);
    await cluster.stdin.close();
    await reader.cancel();
    await cluster.status;
  },
});

Deno.test({
  name: `on Ray, every line gets one result, a poison request its error, and nothing is done again${needs}`,
  ignore,
  async fn() {
    const lines = [...Array(1500).keys()].map((i) => request(`é${i}`, i === 700 ? "poison" : `p${i}`));
    const options = await driverOptions([...lines, "no JSON", lines[5], ""], 2, { block: 4 }); // so small that a task takes two
    const { code, stdout, stderr } = await drive(options);
    assert.equal(code, 1, stderr);
    assert.match(stdout, /is ready: 1502 results, 3 errors, [1-9]\d* requests computed again\.\n$/);
    const results = resultsIn(await outputOf(options.output)), errors = results.filter(({ error }) => error);
    assert.equal(results.length, 1502);
    assert.equal(new Set(results.map(({ id }) => id)).size, 1502);
    const said = errors.map(({ custom_id, error }) => `${custom_id} ${error!.code}`).sort();
    assert.deepEqual(said, ["null invalid_json_line", "é5 duplicate_custom_id", "é700 worker_died"]);
    for (const { custom_id, response } of results.filter(({ error }) => !error)) {
      const [{ text }] = response!.body.choices as { text: string }[];
      assert.equal(text, `P${custom_id!.slice(1)}`);
    }
    // What is missing is done, and nothing else: a shard is lost, and a line is new.
    const shards = (await Array.fromAsync(Deno.readDir(options.output))).map(({ name }) => name)
      .filter((name) => name.endsWith(".jsonl")).sort();
    const lost = resultsIn(await Deno.readTextFile(join(options.output, shards[0]))).length;
    await Deno.remove(join(options.output, shards[0]));
    await Deno.writeTextFile(options.input, request("new") + "\n", { append: true });
    const again = await drive(options);
    assert.match(again.stderr, new RegExp(`${1502 - lost} of 1503 results are there`));
    const kept = (await Array.fromAsync(Deno.readDir(options.output))).map(({ name }) => name);
    for (const shard of shards.slice(1)) assert.ok(kept.includes(shard));
    const whole = resultsIn(await outputOf(options.output));
    assert.deepEqual([whole.length, new Set(whole.map(({ id }) => id)).size], [1503, 1503]);
    const other = await drive({ ...options, settings: { model: 2 } });
    assert.equal(other.code, 2);
    assert.match(other.stderr, /holds results of other settings/);
  },
});

Deno.test({
  name: `on Ray, the driver takes as much memory for a million requests as for ten thousand${needs}`,
  ignore: ignore || !full || Deno.build.os !== "linux",
  async fn() {
    const peaks: number[] = [];
    for (const count of [10_000, 1_000_000]) {
      const options = await driverOptions([...Array(count).keys()].map((i) => request(`r${i}`)), 2);
      const child = startDriver(options), ended = child.output();
      let running = true, peak = 0;
      void ended.then(() => running = false);
      while (running) {
        const status = await Deno.readTextFile(`/proc/${child.pid}/status`).catch(() => "");
        peak = Math.max(peak, Number(status.match(/VmHWM:\s*(\d+) kB/)?.[1] ?? 0) / 1000);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const { code, stderr } = await ended;
      assert.equal(code, 0, new TextDecoder().decode(stderr));
      peaks.push(peak);
      await Deno.remove(join(options.output, ".."), { recursive: true });
    }
    console.log({ peaksInMB: peaks });
    assert.ok(peaks[0] > 50 && peaks[1] <= 1.2 * peaks[0], `${peaks} MB`);
  },
});

interface Process {
  pid: number;
  parent: number;
  command: string;
}

const byCommand = (pattern: RegExp) => (all: Process[]) => all.filter(({ command }) => pattern.test(command));
const actors = byCommand(/^ray::.*Answerer/);
/** Nodes that have an actor, except the first one, which keeps the cluster's books: whoever loses it loses the driver. */
const nodes = (all: Process[]) =>
  byCommand(/raylet\/raylet /)(all).slice(1).filter(({ pid }) => actors(all).some(({ parent }) => parent === pid));

/** What is killed, and whether the run goes on without it. */
const VICTIMS: [name: string, among: (all: Process[]) => Process[], goesOn: boolean][] = [
  ["a worker process", byCommand(/echo_worker\.py 0/), true],
  ["an actor", actors, true],
  ["a node", nodes, true],
  ["the driver", byCommand(/ray\/driver\.py \{/), false],
  ["everything", byCommand(/ray|echo_worker\.py/), false],
];

for (const [victim, among, goesOn] of VICTIMS) {
  Deno.test({
    name: `on Ray, a kill -9 of ${victim} at random moments of five runs loses nothing and does nothing twice${needs}`,
    ignore: ignore || !full,
    async fn() {
      const random = seededRandom(victim.length), count = 6000;
      const lines = [...Array(count).keys()].map((i) => request(`r${i}`));
      let kills = 0;
      for (let run = 0; kills < 5; run++) {
        assert.ok(run < 10, `${kills} of ${run} runs were still on when it was time to kill`);
        const options = await driverOptions(lines, 2, { pause: 0.002, block: 16 }); // a task takes two
        const goal = Math.floor(random() * 250);
        const child = startDriver(options), ended = child.output();
        let running = true, victims: Process[] = [];
        void ended.then(() => running = false);
        while (running && (victims.length === 0 || (await shardsIn(options.output)) < goal)) {
          victims = among(await descendants(child.pid));
        }
        await new Promise((resolve) => setTimeout(resolve, 100 * random())); // somewhere in a block
        const one = victims[Math.floor(random() * victims.length)];
        if (running && one) { // else it ended before
          const all = victim === "everything" ? victims : victim === "a node" ? await descendants(one.pid) : [one];
          for (const { pid } of all) kill(pid);
          kills++;
        }
        const { code, stdout, stderr } = await ended;
        if (goesOn) assert.equal(code, 0, new TextDecoder().decode(stderr));
        const left = goesOn ? null : await drive(options);
        if (left) assert.equal(left.code, 0, left.stderr);
        const results = resultsIn(await outputOf(options.output)), choices = choicesById(results);
        const said = left ? left.stdout : new TextDecoder().decode(stdout);
        console.log(`${victim}, after ${goal} shards: ${said.trim().replace(/^.*is ready/, "ready")}`);
        assert.equal(choices.size, count);
        for (const [id, answer] of choices) assert.equal(JSON.parse(answer)[0].text, id.toUpperCase());
      }
    },
  });
}

async function shardsIn(folder: string): Promise<number> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder))).filter(({ name }) => /^[^_.]/.test(name)).length;
  } catch {
    return 0;
  }
}

function kill(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch { /* It has ended by itself. */ }
}

/** A process and all that come from it, as far as they have not lost their parents. */
async function descendants(pid: number): Promise<Process[]> {
  const { stdout } = await new Deno.Command("ps", { args: ["-eo", "pid=,ppid=,args="] }).output();
  const all = new TextDecoder().decode(stdout).trim().split("\n").map((line) => {
    const [, pid, parent, command] = line.match(/^\s*(\d+)\s+(\d+)\s+(.*)$/)!;
    return { pid: Number(pid), parent: Number(parent), command };
  });
  const found = all.filter((one) => one.pid === pid);
  for (const { pid } of found) found.push(...all.filter(({ parent }) => parent === pid)); // grows as it goes
  return found;
}

Deno.test({
  name: `on Ray, the shipped model gives what batch gives on one machine${needs}`,
  ignore,
  async fn() {
    const count = full ? 20_000 : 600, folder = await Deno.makeTempDir({ prefix: "omnibus-ray-" });
    const input = join(folder, "in.jsonl"), nodes = full ? 3 : 2;
    await Deno.writeTextFile(input, batchLines(count, 4).join("\n"));
    const run = async (...args: string[]) => {
      const all = ["run", "-A", "lib/cli/batch.ts", "--input", input, ...args];
      const { code, stderr } = await new Deno.Command(Deno.execPath(), { args: all, cwd: root }).output();
      assert.equal(code, 0, new TextDecoder().decode(stderr));
    };
    await run("--output", join(folder, "shards"), "--ray", `local:${nodes}`);
    await run("--output", join(folder, "alone.jsonl"));
    const onRay = choicesById(resultsIn(await outputOf(join(folder, "shards"))));
    const alone = choicesById(resultsIn(await Deno.readTextFile(join(folder, "alone.jsonl"))));
    const ties = differing(onRay, alone);
    console.log({ count, ties });
    assert.deepEqual([onRay.size, alone.size], [count, count]);
    assert.ok(ties <= 0.005 * count, `${ties} of ${count} differ`);
  },
});

Deno.test({
  name: `on Ray, Parquet goes in and comes out${needs}`,
  ignore,
  async fn() {
    const options = await driverOptions([], 1), input = join(options.output, "../in.parquet");
    const code = `
import json, sys, pyarrow as pa, pyarrow.parquet as pq
rows = [{"custom_id": f"q{i}", "method": "POST", "url": "/v1/completions", "body": json.dumps({"prompt": f"q{i}"})} for i in range(700)]
pq.write_table(pa.Table.from_pylist(rows), sys.argv[1], row_group_size=300)`;
    assert.ok((await new Deno.Command(python!, { args: ["-c", code, input] }).output()).success);
    const { code: exit, stderr } = await drive({ ...options, input });
    assert.equal(exit, 0, stderr);
    const read = `
import glob, json, sys, pyarrow.parquet as pq
rows = [row for path in glob.glob(sys.argv[1] + "/*.parquet") for row in pq.read_table(path).to_pylist()]
print(json.dumps([[row["custom_id"], json.loads(row["response"])["body"]["choices"][0]["text"]] for row in rows]))`;
    const { stdout } = await new Deno.Command(python!, { args: ["-c", read, options.output] }).output();
    const answers: [string, string][] = JSON.parse(new TextDecoder().decode(stdout));
    assert.equal(new Set(answers.map(([id]) => id)).size, 700);
    for (const [id, text] of answers) assert.equal(text, id.toUpperCase());
  },
});

Deno.test({
  name: `the cluster file fits Ray's schema, and both manifests name the pinned Ray and flags that batch has${needs}`,
  ignore,
  async fn() {
    const code = `
import json, sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
job, cluster = (yaml.safe_load(open(sys.argv[1] + name)) for name in ("rayjob.yaml", "cluster.yaml"))
validate_config(prepare_config(cluster))
broken = dict(cluster, max_worker=3)
try:
    validate_config(prepare_config(broken))
    print("no control")
except Exception:
    print(json.dumps(job))`;
    const folder = join(root, "lib/batch/ray/");
    const { stdout, stderr } = await new Deno.Command(python!, { args: ["-c", code, folder] }).output();
    assert.match(new TextDecoder().decode(stdout), /^\{/, new TextDecoder().decode(stderr));
    const job = JSON.parse(new TextDecoder().decode(stdout));
    const [, version] = (await Deno.readTextFile(join(folder, "requirements.in"))).match(/==(\S+)/)!;
    assert.deepEqual([job.apiVersion, job.kind, job.spec.rayClusterSpec.rayVersion], ["ray.io/v1", "RayJob", version]);
    assert.match(await Deno.readTextFile(join(folder, "Dockerfile")), new RegExp(`FROM rayproject/ray:${version}-`));
    const command = await Deno.readTextFile(join(root, "lib/cli/batch.ts"));
    for (const file of ["rayjob.yaml", "cluster.yaml"]) {
      const flags = (await Deno.readTextFile(join(folder, file))).matchAll(
        / --((?:ray|input|output|cpus|min|max)[\w-]*)/g,
      );
      for (const [, flag] of flags) {
        assert.match(command, new RegExp(`\\b"?${flag}"?: \\{`), `${basename(file)}: ${flag}`);
      }
    }
  },
});
