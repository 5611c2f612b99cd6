/** `deno task serve` as a process: signals, clients that are killed, and what it refuses to start with. */

import assert from "node:assert/strict";
import { lines } from "../lib/util/lines.ts";

const full = Deno.env.has("OMNIBUS_FULL"), windows = Deno.build.os === "windows";

function start(args: string[], before: string[] = []) {
  const [program, ...all] = [...before, Deno.execPath(), "run", "-A", "lib/cli/serve.ts", "--port", "0", ...args];
  const child = new Deno.Command(program, {
    args: all,
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  return { child, said: lines(child.stderr) };
}

/** Starts a server, by way of another program if need be, and waits until it answers. */
async function running(args: string[] = [], before?: string[]) {
  const { child, said } = start(args, before), logged = new Response(child.stdout).text();
  for (let line; !(line = await said.next()).done;) {
    const url = line.value.match(/^(http:\S+)\/v1 answers/)?.[1];
    if (!url) continue;
    const rest = (async () => {
      for await (const _ of said);
    })();
    return { child, url, logged, ended: Promise.all([child.status, rest]) };
  }
  throw new Error(`It ended: ${(await child.status).code}`);
}

/** Asserts that a server that is told to end does so, with 0. */
async function endsAtSigterm(child: Deno.ChildProcess, ended: Promise<[Deno.CommandStatus, void]>) {
  child.kill("SIGTERM");
  assert.equal((await ended)[0].code, 0);
}

/** Asserts that a server says something and ends, before it answers anybody. */
async function refuses(message: RegExp, args: string[], before?: string[]) {
  const { child, said } = start(args, before);
  const [lines] = await Promise.all([Array.fromAsync(said), child.stdout.cancel()]);
  assert.match(lines.join("\n"), message);
  assert.equal((await child.status).code, 2, args.join(" "));
}

const long = { prompt: "Call me", max_tokens: 250, ignore_eos: true, stream: true };
const post = (url: string, body: unknown) =>
  fetch(`${url}/v1/completions`, { method: "POST", body: JSON.stringify(body) });

Deno.test({
  name: "at SIGTERM the server answers what it has and nothing new, and ends with 0; it logs a line a request",
  ignore: windows,
  async fn() {
    const { child, url, logged, ended } = await running();
    const stream = await post(url, long), reader = stream.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader.read()).value!;
    child.kill("SIGTERM");
    let late: Response;
    do {
      late = await post(url, { prompt: "a", max_tokens: 1 }); // until the signal was heard
      await late.body?.cancel();
    } while (late.status === 200);
    assert.equal(late.status, 503);
    for (let part; !(part = await reader.read()).done;) text += part.value;
    assert.match(text, /"finish_reason":"length".*\n\ndata: \[DONE\]\n\n$/s);
    const [{ code }] = await ended;
    assert.equal(code, 0);
    const entries = (await logged).trim().split("\n").map((line) => JSON.parse(line));
    const streamed = entries.find(({ stream }) => stream);
    assert.deepEqual([streamed.status, streamed.promptTokens, streamed.completionTokens], [200, 2, 250]);
    assert.equal(entries.at(-1).status === 200 || entries.some(({ error }) => error === "shutting_down"), true);
  },
});

Deno.test({
  name: "a second signal ends the server at once",
  ignore: windows,
  async fn() {
    for (let round = 0; round < (full ? 20 : 2); round++) {
      const { child, url, ended } = await running(["--max-batch", "1"]);
      const streams = await Promise.all(Array.from({ length: 8 }, () => post(url, long)));
      child.kill("SIGTERM");
      while ((await fetch(`${url}/health`).then((r) => r.body!.cancel().then(() => r.status))) === 200);
      child.kill("SIGTERM");
      const [{ code }] = await ended;
      assert.equal(code, 1);
      for (const stream of streams) await stream.text().catch(() => {});
    }
  },
});

Deno.test({
  name: "clients that are killed in mid-stream leave neither seats nor memory taken",
  ignore: windows,
  async fn() {
    const { child, url, ended } = await running(["--max-batch", "4"]);
    const client = `const response = await fetch("${url}/v1/completions", { method: "POST", body: '${
      JSON.stringify(long)
    }' });
for await (const _ of response.body) console.log("part");`;
    const value = (metrics: string, name: string) => Number(metrics.match(new RegExp(`^${name} (\\S+)$`, "m"))?.[1]);
    const metrics = async () => await (await fetch(`${url}/metrics`)).text();
    const idle = async () => {
      for (;;) {
        const text = await metrics();
        if (value(text, "omnibus_seats_taken") + value(text, "omnibus_queue_length") === 0) return text;
      }
    };
    const memory: number[] = [], rounds = full ? 100 : 2, each = full ? 5 : 3;
    let killed = 0;
    for (let i = 0; i < rounds; i++) {
      const clients = Array.from(
        { length: each },
        () => new Deno.Command(Deno.execPath(), { args: ["eval", client], stdout: "piped", stderr: "null" }).spawn(),
      );
      await Promise.all(clients.map(async (one) => {
        const reader = one.stdout.getReader();
        if (!(await reader.read()).done) killed++; // it is in mid-stream
        one.kill("SIGKILL");
        await reader.cancel();
        await one.status;
      }));
      const text = await idle();
      memory.push(value(text, "process_resident_memory_bytes"));
      assert.ok(value(text, "omnibus_kv_cache_bytes") <= value(text, "omnibus_kv_cache_limit_bytes"));
    }
    const text = await metrics(), cut = value(text, 'omnibus_requests_total\\{path="/v1/completions",status="499"\\}');
    assert.ok(killed >= rounds && cut > 0 && cut <= rounds * each, `${killed} killed, ${cut} noticed`);
    const [middle, last] = [memory[Math.floor(rounds / 2)], memory.at(-1)!];
    console.log({ killed, noticed: cut, megabytesBefore: middle / 1e6, megabytesAfter: last / 1e6 });
    if (full) assert.ok(last - middle < 50e6, `${last - middle} bytes`);
    await endsAtSigterm(child, ended);
  },
});

Deno.test({
  name: "where few files may be open, the server takes fewer connections, and goes on after more have come",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const files = 128, { child, url, ended } = await running([], ["sh", "-c", `ulimit -n ${files}; exec "$@"`, "sh"]);
    const { hostname, port } = new URL(url);
    const healthy = async () => {
      using client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 }); // over a connection of its own
      return (await (await fetch(`${url}/health`, { client })).json()).status === "ok";
    };
    for (let round = 0; round < 5; round++) {
      const coming = Array.from({ length: 4 * files }, () => Deno.connect({ hostname, port: Number(port) }));
      const connections = (await Promise.allSettled(coming)).flatMap((one) =>
        one.status === "fulfilled" ? one.value : []
      );
      assert.ok(connections.length > 0);
      for (const connection of connections) connection.close();
      while (!await healthy().catch(() => false)); // until the server has heard that they are closed
    }
    await endsAtSigterm(child, ended);
  },
});

Deno.test({
  name: "where the log cannot be written, requests are answered all the same",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const { child, url, ended } = await running([], ["sh", "-c", 'exec "$@" > /dev/full', "sh"]);
    for (const stream of [false, true, false]) {
      const answer = await post(url, { prompt: "a", max_tokens: 2, stream });
      assert.deepEqual([answer.status, (await answer.text()).length > 0], [200, true]);
    }
    await endsAtSigterm(child, ended);
  },
});

Deno.test({
  name: "a key in the environment may end with a new line, and must not be blank",
  ignore: windows,
  async fn() {
    const { child, url, ended } = await running([], ["env", "OMNIBUS_API_KEY=a key\n"]);
    const status = async (headers: HeadersInit) => {
      const answer = await fetch(`${url}/v1/models`, { headers });
      await answer.body?.cancel();
      return answer.status;
    };
    assert.deepEqual([await status({ authorization: "Bearer a key" }), await status({})], [200, 401]);
    child.kill("SIGTERM");
    await ended;
    await refuses(/OMNIBUS_API_KEY is set and has no key/, [], ["env", "OMNIBUS_API_KEY= "]);
  },
});

Deno.test("the server does not start where it cannot listen, without a key in the file, or without a model", async () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const folder = await Deno.makeTempDir(), empty = `${folder}/keys`;
  await Deno.writeTextFile(empty, "\n \n");
  type Case = [RegExp, ...string[]];
  const cases: Case[] = [
    [/Cannot listen on 127\.0\.0\.1:\d+: another program does/, "--port", `${taken.addr.port}`],
    [/--api-key-file has no key/, "--api-key-file", empty],
    [/Cannot read --api-key-file/, "--api-key-file", `${folder}/none`],
    [/There is no model "none"/, "--model", "none"],
    [/--port must be 65535 or less/, "--port", "70000"],
    [/Cannot use idleTimeoutSeconds 9999999/, "--idle-timeout", "9999999"],
    [
      /Cannot allow the origin "https:\/\/a\.example\/": .* such as https:\/\/a\.example, or/,
      "--allow-origin",
      "https://a.example/",
    ],
    [/Cannot allow the origin "a\.example"/, "--allow-origin", "a.example"],
    ...Deno.build.os === "linux"
      ? [[/Cannot hold 999999999 connections: of the \d+ files/, "--max-connections", "999999999"]] as Case[]
      : [],
  ];
  await Promise.all(cases.map(([message, ...args]) => refuses(message, args)));
});
