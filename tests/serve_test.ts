/** The server: real clients get what the library gives, and nobody gets more than the limits allow. */

import assert from "node:assert/strict";
import OpenAI from "openai";
import type { SubmitOptions } from "../lib/engine/engine.ts";
import { EventStream } from "../lib/serve/event_stream.ts";
import { listen } from "../lib/serve/http.ts";
import { seededRandom } from "../lib/util/random.ts";
import { alone, randomRequest } from "./_support/engine_workloads.ts";
import { collectGarbage } from "./_support/garbage.ts";
import { connect, exchange, served, until } from "./_support/http.ts";

const full = Deno.env.has("OMNIBUS_FULL");

const client = (url: string, options = {}) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, ...options });

Deno.test("OpenAI's client gets what the library gives: whole, streamed, several prompts, n, stop, log-probabilities", async () => {
  await using it = await served();
  const openai = client(it.server.url), ask = { model: "small", max_tokens: 12, temperature: 0 };
  const expected = async (prompt: string, options: Partial<SubmitOptions> = {}) =>
    await alone(it.model, {
      ...{ prompt: it.tokenizer(prompt).inputIds[0], maxTokens: 12, tokenizer: it.tokenizer },
      ...options,
    });
  const whole = await openai.completions.create({ ...ask, prompt: "Call me" });
  assert.equal(whole.choices[0].text, (await expected("Call me")).text);
  assert.deepEqual(whole.usage, { prompt_tokens: 2, completion_tokens: 12, total_tokens: 14 });
  const several = await openai.completions.create({
    ...ask,
    prompt: ["Call me", "It is"],
    n: 2,
    temperature: 1,
    seed: 5,
  });
  const drawn = await Promise.all(["Call me", "It is"].map((prompt) => expected(prompt, { temperature: 1, seed: 5 })));
  assert.deepEqual(several.choices.map(({ index }) => index), [0, 1, 2, 3]);
  assert.deepEqual([several.choices[0].text, several.choices[2].text], drawn.map(({ text }) => text));
  assert.notEqual(several.choices[0].text, several.choices[1].text);
  const stop = whole.choices[0].text.slice(5, 8);
  const stopped = await openai.completions.create({ ...ask, prompt: "Call me", stop: ["\0", stop], logprobs: 2 });
  const { text, logprobs, finishReason, tokens } = await expected("Call me", { stop, logprobs: true });
  assert.deepEqual([stopped.choices[0].text, stopped.choices[0].finish_reason], [text, finishReason]);
  assert.equal(finishReason, "stop");
  assert.equal(stopped.choices[0].logprobs!.token_logprobs!.length, tokens.length);
  for (const [i, value] of stopped.choices[0].logprobs!.token_logprobs!.entries()) {
    assert.ok(Math.abs(value - logprobs![i]) < 1e-3);
  }
  const stream = await openai.completions.create({
    ...{ ...ask, prompt: "Call me", n: 2, temperature: 1, seed: 5 },
    ...{ stream: true as const, stream_options: { include_usage: true } },
  });
  const texts = ["", ""], usages: unknown[] = [];
  for await (const { choices, usage } of stream) {
    for (const { index, text } of choices) texts[index] += text;
    if (usage) usages.push(usage);
  }
  assert.deepEqual(texts, several.choices.slice(0, 2).map(({ text }) => text));
  assert.deepEqual(usages, [{ prompt_tokens: 2, completion_tokens: 24, total_tokens: 26 }]);
  const { data } = await openai.models.list();
  assert.deepEqual(data.map(({ id }) => id), ["small"]);
  assert.deepEqual({ ...await openai.models.retrieve("small") }, { ...data[0] });
});

Deno.test("OpenAI's client understands the errors, and cancels", async () => {
  await using it = await served();
  const openai = client(it.server.url), ask = { model: "small", prompt: "Call me" };
  const refused = async (body: object) => await openai.completions.create({ ...ask, ...body } as never).catch((e) => e);
  const missing = await refused({ model: "gpt-5" });
  assert.ok(missing instanceof OpenAI.NotFoundError && missing.code === "model_not_found", `${missing}`);
  const long = await refused({ max_tokens: 300 });
  assert.ok(long instanceof OpenAI.BadRequestError && long.code === "context_length_exceeded", `${long}`);
  assert.match(long.message, /the prompt has 2 and the model holds 256/);
  const chat = await openai.chat.completions.create({ model: "small", messages: [] }).catch((e) => e);
  assert.ok(chat instanceof OpenAI.BadRequestError && /chat template/.test(chat.message));
  const stream = await openai.completions.create({ ...ask, max_tokens: 200, stream: true });
  for await (const _ of stream) break; // goes away
  await until(() => it.engine.seated + it.engine.waiting === 0);
  const { steps } = it.engine.timeline;
  assert.ok(steps.some(({ events }) => events.some(({ what }) => what === "cancelled")));
  await until(() => it.log.some(({ status }) => status === 499));
});

/** Answers of the server to random requests that are all under way at once, and those that the library gives. */
async function concurrently(count: number): Promise<[unknown, unknown][]> {
  await using it = await served({ maxBatch: 16 });
  const random = seededRandom(3), { config } = it.model;
  const pairs = await Promise.all(Array.from({ length: count }, async (_, i): Promise<[unknown, SubmitOptions]> => {
    const { prompt, maxTokens, temperature, seed, topK, repetitionPenalty, frequencyPenalty } = randomRequest(
      config,
      random,
    );
    const options = { temperature, seed, topK, repetitionPenalty, frequencyPenalty };
    const body = {
      ...{ prompt, max_tokens: maxTokens, temperature: temperature ?? 0, seed, top_k: topK, logprobs: 0 },
      ...{ repetition_penalty: repetitionPenalty, frequency_penalty: frequencyPenalty, stream: i % 2 === 0 },
    };
    const response = await it.post("/v1/completions", body), text = await response.text();
    assert.equal(response.status, 200, text);
    const chunks = i % 2
      ? [JSON.parse(text)]
      : text.split("\n\n").slice(0, -2).map((line) => JSON.parse(line.slice(6)));
    const tokens = chunks.flatMap(({ choices: [{ logprobs }] }) => logprobs.tokens);
    return [tokens, { prompt, maxTokens, tokenizer: it.tokenizer, ...options }];
  }));
  const expected: [unknown, unknown][] = [];
  for (const [answer, options] of pairs) {
    const { tokens } = await alone(it.model, options);
    const names = tokens.map((id) =>
      it.tokenizer.tokenToText(id).replace(/^(\\x..)+$/, (b) => `bytes:${b.toLowerCase()}`)
    );
    expected.push([answer, names]);
  }
  return expected;
}

Deno.test("requests of all shapes at once, streamed and not, sampled and greedy, get the tokens that the library gives", async () => {
  const pairs = await concurrently(full ? 1000 : 24);
  let differing = 0;
  for (const [answer, expected] of pairs) if (JSON.stringify(answer) !== JSON.stringify(expected)) differing++;
  assert.ok(differing <= pairs.length * 0.005, `${differing} of ${pairs.length} differ`); // ties
  assert.ok(pairs.length >= 24);
});

Deno.test("keys open the server, pages of other sites do not, and neither keys nor texts are logged", async () => {
  await using it = await served({ apiKeys: ["first key", "another"], allowOrigins: ["https://good.example"] });
  const status = async (headers: Record<string, string>, path = "/v1/models") => {
    const response = await fetch(it.server.url + path, { headers });
    await response.body?.cancel();
    return response.status;
  };
  const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
  assert.deepEqual(
    [await status({}), await status(bearer("")), await status(bearer("another ")), await status(bearer("anothe"))],
    [401, 401, 200, 401],
  );
  assert.deepEqual([await status(bearer("first key")), await status({}, "/health")], [200, 200]);
  for (const path of ["/metrics", "/timeline", "/tokenize"]) assert.equal(await status({}, path), 401, path);
  assert.equal(await status({ ...bearer("another"), origin: "https://evil.example" }), 403);
  assert.equal(await status({ ...bearer("another"), origin: it.server.url }), 200, "its own page");
  const rebound = await exchange(it.server, "GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
  assert.match(rebound, /^HTTP\/1.1 403 .*"cross_origin"/s);
  const allowed = await fetch(`${it.server.url}/v1/completions`, {
    method: "OPTIONS",
    headers: { origin: "https://good.example", "access-control-request-method": "POST" },
  });
  await allowed.body?.cancel();
  assert.equal(allowed.headers.get("access-control-allow-origin"), "https://good.example");
  const body = { prompt: "Some private text", max_tokens: 2 };
  await (await it.post("/v1/completions", body, { headers: bearer("another") })).json();
  const line = it.log.at(-1)!, lines = JSON.stringify(it.log);
  assert.deepEqual([line.status, line.promptTokens, line.completionTokens, line.answers], [200, 3, 2, 1]);
  assert.ok(line.firstTokenSeconds! > 0 && line.seconds >= line.firstTokenSeconds!);
  assert.doesNotMatch(lines, /another|first key|private/);
});

/** Bytes that no well-behaved client sends; each is to be answered with an error of OpenAI's shape or closed. */
function hostile(random: () => number): Uint8Array | string {
  const upTo = (n: number) => Math.floor(random() * n), pick = <T>(...of: T[]) => of[upTo(of.length)];
  const post = (body: string, path = "/v1/completions", headers = "") =>
    `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${
      new TextEncoder().encode(body).length
    }\r\n${headers}\r\n${body}`;
  const garbage = () => Array.from({ length: 1 + upTo(200) }, () => String.fromCharCode(upTo(256))).join("");
  const wrong = () => pick<unknown>(null, -1, 1e308, 1e999, "x", [], {}, [[[]]], true, "\ud800", Number.MIN_VALUE);
  const name = () =>
    pick("prompt", "max_tokens", "n", "temperature", "top_p", "stop", "logit_bias", "seed", "logprobs", "model");
  return pick(
    () => post('{"prompt": "a", '.repeat(1 + upTo(5))),
    () => post("[".repeat(1 + upTo(100_000))),
    () => post('{"a":'.repeat(1 + upTo(50_000))),
    () => post(`{"prompt": "a", "max_tokens": ${"9".repeat(1 + upTo(4000))}}`),
    () => post(JSON.stringify({ prompt: wrong(), [name()]: wrong(), max_tokens: -1 })),
    () => post('{"prompt": "\\ud800"}'),
    () => post(JSON.stringify({ prompt: "a", model: garbage() })),
    () => post(JSON.stringify({ __proto__: null, prompt: { toString: 1 }, constructor: { prototype: {} } })),
    () => post(garbage(), pick("/tokenize", "/detokenize", "/v1/completions")),
    () => post("{}", `/${"a".repeat(upTo(3000))}`),
    () => post("{}", "/v1/completions", `X: ${"y".repeat(upTo(200_000))}\r\n`),
    () => post("{}", "/v1/completions", Array.from({ length: upTo(500) }, (_, i) => `X-${i}: y\r\n`).join("")),
    () => `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n${"a".repeat(1000)}`,
    () =>
      `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n${
        pick("zz", "-1", "ffffffffffffffff")
      }\r\na\r\n0\r\n\r\n`,
    () =>
      `POST ${
        pick("/v1/completions", "/tokenize", "/crowd")
      } HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"p`, // no more
    () => `${pick("GET", "PUT", "DELETE", "PATCH", "TRACE")} /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n`,
    () => `${garbage()}\r\n\r\n`,
  )();
}

Deno.test("whatever is sent, the answer is an error of OpenAI's shape or a closed connection, and good requests are answered meanwhile", async () => {
  await using it = await served({ maxBodyBytes: 200_000, idleTimeoutSeconds: 0.5 });
  const random = seededRandom(4), count = full ? 10_000 : 150, seen = { answered: 0, closed: 0 };
  const good = async () =>
    await (await it.post("/v1/completions", { prompt: "Call me", max_tokens: 3, temperature: 0 })).json();
  const expected = (await good()).choices[0].text;
  const memory = async () => {
    it.log.length = 0; // what the test keeps
    await collectGarbage();
    const { heapUsed, external } = Deno.memoryUsage();
    return heapUsed + external;
  };
  let done = 0, before = 0;
  const attack = async () => {
    while (done++ < count) {
      if (done === Math.floor(count / 2)) before = await memory();
      const bytes = hostile(random), leaves = random() < 0.1, halfClose = random() < 0.1;
      const text = await exchange(it.server, bytes, (text) => leaves || complete(text), { halfClose });
      if (text === "") seen.closed++;
      else {
        const say = `${bytes.slice(0, 200)} -> ${text.slice(0, 300)}`, [head, body] = split(text);
        assert.match(head, /^HTTP\/1.1 4\d\d /, say);
        if (body === "") seen.closed++; // refused before it was understood
        else {
          const { error } = JSON.parse(body);
          assert.deepEqual(Object.keys(error), ["message", "type", "param", "code"], say);
          assert.ok(error.message.length < 500, say);
          seen.answered++;
        }
      }
    }
  };
  let served_ = 0;
  const serving = (async () => {
    while (done < count) {
      assert.equal((await good()).choices[0].text, expected);
      served_++;
    }
  })();
  await Promise.all([...Array.from({ length: 8 }, attack), serving]);
  const grown = await memory() - before;
  console.log({ ...seen, goodBeside: served_, keptMegabytes: grown / 1e6 });
  assert.ok(seen.answered > count / 4 && seen.closed > 0 && served_ > 0);
  const each = grown / (count / 2);
  if (full) assert.ok(each < 100, `${each} bytes for each request stay in use`);
  assert.deepEqual([it.engine.seated, it.engine.waiting], [0, 0]);
});

function split(text: string): [string, string] {
  const at = text.indexOf("\r\n\r\n");
  return [text.slice(0, at), text.slice(at + 4)];
}

function complete(text: string): boolean {
  const [head, body] = split(text), length = head.match(/content-length: (\d+)/i);
  return length !== null && new TextEncoder().encode(body).length >= Number(length[1]);
}

Deno.test("idle connections do not keep others out: within the bound all are served, and idle ones are hung up on", async () => {
  const most = full ? 4000 : 200, beginnings = ["", "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nX-Slow"];
  {
    await using it = await served({ maxConnections: most });
    const models = async () => await (await fetch(`${it.server.url}/v1/models`)).json();
    const idle: Deno.TcpConn[] = [];
    while (idle.length < most - 1) {
      idle.push(await connect(it.server));
      await idle.at(-1)!.write(new TextEncoder().encode(beginnings[idle.length % 2]));
    }
    assert.equal((await models()).data[0].id, "small"); // over the last connection, which stays open
    assert.equal(await exchange(it.server, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"), "", "hung up on");
    assert.equal((await models()).data[0].id, "small");
    for (const connection of idle) connection.close();
    const status = () => exchange(it.server, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while (await status() === ""); // until the server has heard of it
  }
  await using it = await served({ idleTimeoutSeconds: 0.2 });
  const complete = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", ends = () => false;
  const [nothing, half, more] = await Promise.all(
    [...beginnings, complete].map((bytes) => exchange(it.server, bytes, ends)),
  );
  assert.match(nothing, /^(HTTP\/1.1 408 .*malformed_request.*)?$/s);
  assert.match(half, /^HTTP\/1.1 408 .*malformed_request/s);
  assert.match(more, /^HTTP\/1.1 200 .*"ok"/s);
});

Deno.test("a body that is yet to come counts as work, whatever it is for", async () => {
  await using it = await served({ maxBatch: 1, maxQueue: 1 });
  const ask = async () => {
    const response = await it.post("/v1/completions", { prompt: "a", max_tokens: 1 });
    await response.body?.cancel();
    return response.status;
  };
  for (const path of ["/v1/completions", "/crowd", "/tokenize", "/detokenize"]) {
    const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\nExpect: 100-continue\r\n\r\n`;
    const uploads = await Promise.all([1, 2].map(async () => {
      const connection = await connect(it.server), buffer = new Uint8Array(100);
      await connection.write(new TextEncoder().encode(head));
      const count = await connection.read(buffer); // once the request has begun
      assert.match(new TextDecoder().decode(buffer.subarray(0, count!)), /^HTTP\/1.1 100 /);
      return connection;
    }));
    assert.equal(await ask(), 429, path);
    for (const upload of uploads) upload.close();
    while (await ask() === 429); // until the server has heard of it
  }
});

Deno.test("a full queue is answered with 429 and when to come again, and OpenAI's client then gets its answer", async () => {
  await using it = await served({ maxBatch: 2, maxQueue: 2 });
  const body = { prompt: "Call me", max_tokens: 100, ignore_eos: true };
  const responses = await Promise.all(Array.from({ length: 12 }, () => it.post("/v1/completions", body)));
  const refused = responses.filter(({ status }) => status === 429);
  assert.ok(refused.length >= 8 - 2, `${responses.map(({ status }) => status)}`);
  assert.ok(responses.some(({ status }) => status === 200));
  for (const { headers } of refused) assert.equal(headers.get("retry-after"), "1");
  for (const response of responses) await response.body?.cancel();
  const large = await it.post("/v1/completions", { ...body, n: 3 });
  assert.deepEqual([large.status, (await large.json()).error.param], [400, "n"], "what can never be is no 429");
  const busy = Array.from({ length: 4 }, () => it.post("/v1/completions", { ...body, max_tokens: 30 }));
  await until(() => it.engine.waiting >= 2);
  const answer = await client(it.server.url, { maxRetries: 5 }).completions.create({
    model: "small",
    prompt: "a",
    max_tokens: 2,
  });
  assert.ok(answer.choices[0].text !== undefined);
  for (const response of await Promise.all(busy)) await response.body?.cancel();
});

Deno.test({
  name: "at twice what it can do the server keeps its queue short, refuses the rest, and serves who is in as before",
  ignore: !full,
  async fn() {
    await using it = await served({ maxBatch: 8, maxQueue: 8 });
    const body = { prompt: "Call me", max_tokens: 64, ignore_eos: true, stream: true };
    /** So many clients that ask again and again, for some seconds: seconds a token of each answer, and refusals. */
    const load = async (clients: number, seconds: number) => {
      const tpot: number[] = [], end = performance.now() + 1000 * seconds;
      let refused = 0, longest = 0;
      await Promise.all(Array.from({ length: clients }, async () => {
        while (performance.now() < end) {
          const response = await it.post("/v1/completions", body);
          longest = Math.max(longest, it.engine.waiting);
          if (response.status === 429) {
            refused++;
            await response.body?.cancel();
            await new Promise((resolve) => setTimeout(resolve, 200));
            continue;
          }
          assert.equal(response.status, 200);
          const times: number[] = [];
          for await (const _ of response.body!) times.push(performance.now());
          tpot.push((times.at(-1)! - times[0]) / 63);
        }
      }));
      return {
        p99: tpot.sort((a, b) => a - b)[Math.ceil(0.99 * tpot.length) - 1],
        answers: tpot.length,
        refused,
        longest,
      };
    };
    const atCapacity = await load(8, 30), over = await load(32, 120);
    console.log({ atCapacity, over, ratio: over.p99 / atCapacity.p99 });
    assert.equal(atCapacity.refused, 0);
    assert.ok(over.refused > 0 && over.longest === 8 && over.answers > 0);
    await until(() => it.engine.seated + it.engine.waiting === 0);
    assert.ok((await load(1, 1)).refused === 0);
  },
});

Deno.test("a request that takes too long ends with 503, in a stream with an event, and frees its seat", async () => {
  await using it = await served({ requestTimeoutSeconds: 0.15 });
  const body = { prompt: "Call me", max_tokens: 250, ignore_eos: true };
  const whole = await it.post("/v1/completions", body);
  assert.deepEqual([whole.status, (await whole.json()).error.code], [503, "timeout"]);
  const events = (await (await it.post("/v1/completions", { ...body, stream: true })).text()).trim().split("\n\n");
  assert.equal(JSON.parse(events.at(-1)!.slice(6)).error.code, "timeout");
  await until(() => it.engine.seated === 0);
});

Deno.test("a body that is too large or too slow is refused without being read", async () => {
  await using it = await served({ maxBodyBytes: 1000, idleTimeoutSeconds: 0.1 });
  const large = await it.post("/v1/completions", { prompt: "a".repeat(1000) });
  assert.deepEqual([large.status, (await large.json()).error.code], [413, "body_too_large"]);
  const chunked = new ReadableStream({
    pull: (controller) => controller.enqueue(new Uint8Array(600)),
  });
  const endless = await it.post("/v1/completions", null, { body: chunked });
  assert.equal(endless.status, 413);
  await endless.body?.cancel();
  const slow = await exchange(
    it.server,
    "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    complete,
  );
  assert.match(slow, /^HTTP\/1.1 408 .*body_too_slow/s);
});

Deno.test("a reader who takes nothing is waited for until the idle time is over, and then let go", async () => {
  const gone: Error[] = [], stream = new EventStream({ idleMilliseconds: 50, onGone: (reason) => gone.push(reason) });
  const send = async () => {
    for (;;) await stream.send("x".repeat(10_000));
  };
  await assert.rejects(send(), /did not read/);
  assert.equal(gone.length, 1);
  const heard = Promise.withResolvers<Error>(),
    unread = new EventStream({ idleMilliseconds: 1, onGone: heard.resolve });
  void unread.send("x".repeat(100_000)); // as to who watches the timeline: nobody waits
  assert.match((await heard.promise).message, /did not read/);
  const late = new AbortController(), { signal } = late;
  const bounded = new EventStream({ idleMilliseconds: 60_000, onGone: (reason) => gone.push(reason), signal });
  const slow = assert.rejects(async () => {
    for (;;) await bounded.send("x".repeat(10_000));
  }, /too late/);
  late.abort(new Error("too late"));
  await slow;
  const patient = new EventStream({ idleMilliseconds: 60_000, onGone: (reason) => gone.push(reason) });
  let sent = 0, read = 0;
  const sending = (async () => {
    for (; sent < 50; sent++) await patient.send("x".repeat(10_000));
    patient.close();
  })();
  for await (const chunk of patient.body) {
    read += chunk.length;
    assert.ok(sent * 10_010 - read < 100_000, "no more than the bound is unread");
  }
  await sending;
  assert.ok(read > 500_000 && gone.length === 1);
});

Deno.test("a reader who stops in the middle of a whole answer is hung up on", async () => {
  const answer = () => new Response("x".repeat(50e6));
  const http = await listen(answer, { host: "127.0.0.1", port: 0, idleMilliseconds: 100 });
  const url = `http://127.0.0.1:${http.port}`, { body } = await fetch(url), reader = body!.getReader();
  await reader.read();
  await http.close(2 ** 31 - 1); // which waits for all connections
  const rest = async () => {
    while (!(await reader.read()).done);
  };
  await assert.rejects(rest());
});

Deno.test("to drain is to say so at once, to refuse what comes, and to answer what is there", async () => {
  await using it = await served({ idleTimeoutSeconds: 1_000_000 }); // nobody is waited for who asked nothing
  const stream = await it.post("/v1/completions", { prompt: "a", max_tokens: 60, ignore_eos: true, stream: true });
  const timeline = await fetch(`${it.server.url}/timeline`);
  using idle = await connect(it.server), half = await connect(it.server);
  await half.write(new TextEncoder().encode("GET /health HTTP/1.1\r\nHost: "));
  const draining = it.server.drain();
  const [health, late] = [await fetch(`${it.server.url}/health`), await it.post("/v1/completions", { prompt: "a" })];
  assert.deepEqual([health.status, late.status, late.headers.get("retry-after")], [503, 503, "1"]);
  assert.equal((await late.json()).error.code, "shutting_down");
  await health.body?.cancel();
  const events = (await stream.text()).trim().split("\n\n");
  assert.equal(events.at(-1), "data: [DONE]");
  assert.equal(JSON.parse(events.at(-2)!.slice(6)).choices[0].finish_reason, "length");
  await timeline.text(); // ends
  await draining;
  for (const one of [idle, half]) assert.equal(await one.read(new Uint8Array(1)), null);
  await assert.rejects(fetch(`${it.server.url}/health`));
});

Deno.test("when the engine has failed, who started the server hears of it, and clients that it is over", async () => {
  await using it = await served();
  it.engine.timeline.listen(() => {
    throw new Error("no more steps"); // within the engine's own work
  });
  const answer = await it.post("/v1/completions", { prompt: "a" });
  assert.deepEqual([answer.status, (await answer.json()).error.type], [500, "server_error"]);
  assert.match(await it.server.failed, /no more steps/);
  const health = await fetch(`${it.server.url}/health`);
  assert.deepEqual([health.status, (await health.json()).error.code], [503, "failed"]);
});

Deno.test("until the model is loaded the server listens and says that it is not ready", async () => {
  const { serve } = await import("../lib/serve/server.ts");
  const loading = Promise.withResolvers<never>();
  await using server = await serve(loading.promise, { port: 0 });
  const health = await fetch(`${server.url}/health`);
  assert.deepEqual([health.status, (await health.json()).error.code], [503, "loading"]);
  loading.reject(new Error("no such model"));
  await assert.rejects(server.ready, /no such model/);
});

Deno.test("metrics and timeline say what the engine did", async () => {
  await using it = await served({ maxBatch: 2 });
  const timeline = await fetch(`${it.server.url}/timeline`), begin = it.engine.timeline.count;
  const prompt = "It is a truth universally acknowledged, that a single man";
  const bodies = [0, 1, 2].map((seed) => ({ prompt, max_tokens: 5, ignore_eos: true, seed, n: 2 }));
  const answers = await Promise.all(bodies.map((body) => it.post("/v1/completions", body)));
  assert.deepEqual(answers.map(({ headers }) => headers.get("omnibus-requests")), ["0,1", "2,3", "4,5"]);
  for (const answer of answers) await answer.body?.cancel();
  const events = [...it.engine.timeline.steps].flatMap(({ events }) => events),
    text = await (await fetch(`${it.server.url}/metrics`)).text();
  const value = (name: string) => Number(text.match(new RegExp(`^omnibus_${name} (\\S+)$`, "m"))?.[1]);
  assert.equal(value("generation_tokens_total"), 30);
  assert.deepEqual([value("time_to_first_token_seconds_count"), value("time_per_output_token_seconds_count")], [6, 6]);
  const hits = events.filter(({ what, reused }) => what === "admitted" && reused);
  assert.equal(value("prefix_hits_total"), hits.length);
  assert.ok(hits.length >= 3 && value("prefix_hit_tokens_total") >= 3 * 8);
  assert.deepEqual([value("seats"), value("seats_taken"), value("queue_length")], [2, 0, 0]);
  assert.match(text, /omnibus_requests_total\{path="\/v1\/completions",status="200"\} 3/);
  await (await fetch(`${it.server.url}/v1/completions`)).body?.cancel(); // no POST
  await (await fetch(`${it.server.url}/v1/models/other`)).body?.cancel();
  const later = await (await fetch(`${it.server.url}/metrics`)).text();
  assert.match(later, /path="other",status="404"\} 1\n/);
  assert.match(later, /path="\/v1\/models\/:name",status="404"\} 1\n/);
  await it.server.drain();
  const parts = (await timeline.text()).trim().split("\n\n").map((part) => part.split("\n"));
  assert.equal(parts[0][0], "event: engine");
  const steps = parts.slice(1).map(([, data]) => JSON.parse(data.slice(6)));
  assert.deepEqual(steps, JSON.parse(JSON.stringify(it.engine.timeline.steps.slice(begin))));
});

Deno.test("who stops watching the timeline, or never did, makes room for others", async () => {
  await using it = await served();
  for (let i = 0; i < 20; i++) {
    assert.equal((await fetch(`${it.server.url}/timeline`, { method: "HEAD" })).status, 200);
  }
  const watch = () => fetch(`${it.server.url}/timeline`), watching = [];
  for (let response = await watch();; response = await watch()) {
    if (response.status === 429) {
      await response.body?.cancel();
      break;
    }
    watching.push(response);
  }
  await watching.pop()!.body!.cancel();
  let next;
  do {
    next = await watch();
    await next.body!.cancel();
  } while (next.status === 429); // until the server has heard of it
  assert.equal(next.status, 200);
  for (const { body } of watching) await body!.cancel();
});
