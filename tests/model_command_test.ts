/** `deno task model` as a process: killed, started twice, and with a token in its environment. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { lines } from "../lib/util/lines.ts";
import { seededRandom } from "../lib/util/random.ts";
import { modelFiles, namesIn, Place, TOKEN } from "./_support/hub_place.ts";

const FOLDER = "tester--tiny";

/** Starts the command on a place's hub, as `deno task` would. */
function start(place: Place, args = ["tester/tiny"], env: Record<string, string> = {}): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "lib/cli/model.ts", "--into", place.models, ...args],
    cwd: new URL("..", import.meta.url),
    env: { NO_COLOR: "1", HF_ENDPOINT: place.hub.endpoint, HF_TOKEN: TOKEN, HF_HOME: place.cache, ...env },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Bytes of a file; 0 if it is gone. */
function size(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return 0;
  }
}

async function end(process: Deno.ChildProcess): Promise<{ code: number; stdout: string; stderr: string }> {
  const output = await process.output();
  const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code: output.code, stdout, stderr };
}

Deno.test("the command says where the model is, how large, and what to do next", async () => {
  await using place = await Place.make();
  const first = await end(start(place));
  assert.equal(first.code, 0, first.stderr);
  await place.assertInstalled();
  assert.match(
    first.stdout,
    /tester--tiny is ready: tester\/tiny at c0ffee000000, [\d,]+ parameters\.\nTry it: deno task generate --model \S+tester--tiny --prompt/,
  );
  assert.match(first.stderr, /^tester\/tiny .* 1\.7 MB of 1\.7 MB$/m);
  const second = await end(start(place));
  assert.deepEqual([second.code, second.stderr], [0, ""]);
  assert.match(second.stdout, /is there, and whole: tester\/tiny at c0ffee/);
});

Deno.test("killed at ten random moments, a download is finished by the next run, and the file is right", async () => {
  const seed = 6, random = seededRandom(seed), files = await modelFiles({ vocab_size: 8000 });
  const size = [...files.values()].reduce((sum, { length }) => sum + length, 0);
  const moments: string[] = [];
  for (let i = 0; i < 10; i++) {
    await using place = await Place.make(files);
    const { hub } = place, moment = Math.floor(random() * 1.02 * size); // now and then after the last byte
    hub.fault = () => ({ slow: 1 });
    const process = start(place);
    const kill = () => {
      try {
        process.kill("SIGKILL");
      } catch { /* It was quicker. */ }
    };
    hub.onBytes = (sent) => sent > moment && kill();
    const { code } = await end(process);
    hub.onBytes = () => {};
    const there = namesIn(place.models).includes(FOLDER), before = hub.requests.length;
    if (there) await place.assertInstalled(); // killed too late, or not at all
    else assert.notEqual(code, 0);
    const staging = join(place.models, ".downloads", FOLDER), kept = new Map<string, number>();
    for (const name of namesIn(staging).filter((name) => !name.endsWith(".etag"))) {
      const bytes = await Deno.readFile(join(staging, name)), [file] = name.split(/\.[0-9a-f]{16}\.part$/);
      kept.set(file, bytes.length);
      if (files.has(name)) assert.deepEqual(bytes, files.get(name), "what has its name is whole");
    }

    const next = await end(start(place));
    assert.equal(next.code, 0, next.stderr);
    await place.assertInstalled();
    for (const { path, server, file, range } of hub.requests.slice(before)) { // what is kept does not come again
      if (path.startsWith("/api/") || server === "hub" && hub.isLarge(file)) continue; // which only say where it is
      const bytes = kept.get(file) ?? 0;
      assert.deepEqual([there, range], [false, bytes ? `bytes=${bytes}-` : null], file);
      assert.ok(bytes < files.get(file)!.length, `all of ${file} was there`);
    }
    moments.push(`${Math.round(100 * moment / size)}%${there ? " (whole)" : ""}`);
  }
  console.log(`killed after ${moments.join(", ")} of ${size} bytes (seed ${seed})`);
});

Deno.test("a process that waits goes on where the one it waits for is killed", async () => {
  const half = 1_000_000;
  await using place = await Place.make();
  const { hub } = place, staging = join(place.models, ".downloads", FOLDER);
  hub.fault = ({ file, range }) => hub.isLarge(file) && !range ? { stallAfter: half } : undefined;
  const first = start(place);
  const arrived = () =>
    namesIn(staging).filter((name) => name.endsWith(".part")).map((name) => size(join(staging, name)));
  while (!arrived().includes(half)) await new Promise((resolve) => setTimeout(resolve, 10));
  const second = start(place), [reader, aside] = second.stderr.tee();
  for await (const line of lines(reader)) if (line.startsWith("Waiting for another process")) break;
  first.kill("SIGKILL");
  const stderr = lines(aside);
  const [{ success }] = await Promise.all([second.status, Array.fromAsync(stderr), second.stdout.cancel()]);
  assert.ok(success);
  assert.notEqual((await end(first)).code, 0);
  await place.assertInstalled();
  const ranges = hub.requests.filter(({ server }) => server === "storage").map(({ range }) => range);
  assert.deepEqual(ranges, [null, `bytes=${half}-`]);
});

Deno.test("what is being downloaded shows how fast it comes and how long it will take", async () => {
  await using place = await Place.make();
  place.hub.fault = () => ({ slow: 80 }); // 27 chunks: more than the second after which the rate is known
  const { code, stderr } = await end(start(place));
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^tester\/tiny {2}[\d.]+ [kM]B of 1\.7 MB {2}[\d.]+ [kM]B\/s {2}\d+ s left$/m);
});

Deno.test("two processes at once download it once, and both succeed", async () => {
  await using place = await Place.make();
  place.hub.fault = () => ({ slow: 20 });
  const ends = await Promise.all([start(place), start(place)].map(end));
  assert.deepEqual(ends.map(({ code }) => code), [0, 0]);
  await place.assertInstalled();
  assert.deepEqual(place.hub.downloads.filter((file) => file === "config.json"), ["config.json"]);
});

Deno.test("the token is in no output, whatever the hub answers and however much is asked for", async () => {
  await using place = await Place.make();
  const { hub } = place, echo = { "x-error-message": TOKEN, "location": `http://u:${TOKEN}@127.0.0.1/?t=${TOKEN}` };
  const outputs: { code: number; stdout: string; stderr: string }[] = [];
  for (const status of [302, 400, 401, 403, 404]) {
    hub.fault = () => ({ status, headers: echo });
    outputs.push(await end(start(place, undefined, { OMNIBUS_DEBUG: "1" })));
  }
  hub.fault = () => ({ status: 429, headers: { ...echo, "retry-after": "9999" } });
  outputs.push(await end(start(place, undefined, { OMNIBUS_DEBUG: "1" })));
  hub.fault = ({ path }) => path.startsWith("/api/") ? { body: `{"sha":"${TOKEN}"}` } : undefined;
  outputs.push(await end(start(place, undefined, { OMNIBUS_DEBUG: "1" })));
  outputs.push(await end(start(place, undefined, { OMNIBUS_DEBUG: "1", HF_TOKEN: `${TOKEN}\n${TOKEN}` })));
  const endpoint = hub.endpoint.replace("//", `//user:${TOKEN}@`);
  outputs.push(await end(start(place, undefined, { OMNIBUS_DEBUG: "1", HF_ENDPOINT: endpoint })));
  for (const { code, stdout, stderr } of outputs) {
    assert.ok(code > 0 && stderr.startsWith("model: "), stderr);
    assert.ok(!`${stdout}${stderr}`.includes("never-show-me"), stderr);
  }
  hub.fault = () => undefined;
  const { code, stdout, stderr } = await end(start(place));
  assert.equal(code, 0, stderr);
  assert.ok(!`${stdout}${stderr}`.includes("never-show-me"));
});

Deno.test("what cannot be done is one line: code 2 for what to ask differently, 1 for what the hub refuses", async () => {
  await using place = await Place.make();
  const cases: [string[], number, RegExp][] = [
    [[], 2, /^model: Name one model: distilgpt2, gpt2, .*, or OWNER\/NAME\.$/],
    [["gpt2", "gpt2-xl"], 2, /Name one model/],
    [["../x"], 2, /"\.\.\/x" is not the name of a model/],
    [["/etc"], 2, /"\/etc" is not the name of a model/],
    [["tester/tiny", "--revision", "../x"], 2, /"\.\.\/x" is not a revision/],
    [["tester/tiny", "--offline"], 1, /^model: Cannot get tester\/tiny: revision main is not in \S+\/hub\. Go online/],
    [["tester/other"], 1, /^model: Cannot get tester\/other: there is no such model on 127/],
  ];
  place.hub.fault = ({ path }) => path.includes("other") ? { status: 404 } : undefined;
  for (const [args, expected, message] of cases) {
    const { code, stdout, stderr } = await end(start(place, args));
    assert.deepEqual([code, stdout, stderr.trim().split("\n").length], [expected, "", 1], stderr);
    assert.match(stderr.trim(), message);
  }
  assert.equal(place.hub.requests.length, 1);
});
