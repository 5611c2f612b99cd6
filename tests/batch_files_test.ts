/** The files of a batch, with answers that need no model: whatever is cut short is taken up, and every bad line gets its error. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { type Entry, readEntry } from "../lib/batch/entry.ts";
import { FirstSeen } from "../lib/batch/first_seen.ts";
import { readLines } from "../lib/batch/lines.ts";
import { DoneLines } from "../lib/batch/partial.ts";
import type { Outcome, Result } from "../lib/batch/result.ts";
import { type BatchOptions, runBatch } from "../lib/batch/run.ts";
import { seededRandom } from "../lib/util/random.ts";
import { nextTurn } from "../lib/util/turn.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

/** Answers at once, or after some turns of the event loop, with what the entry's prompt says. */
async function fakeAnswer({ number, body, error }: Entry): Promise<Outcome> {
  if (error) return { response: null, error: { ...error, line: number } };
  const response = { status_code: 200 as const, request_id: "r", body: { choices: [{ text: `${body!.prompt}!` }] } };
  for (let turns = number % 4; turns > 0; turns--) await nextTurn();
  return { response, error: null };
}

const request = (custom_id: unknown, body: unknown = { prompt: custom_id }, more = {}) =>
  JSON.stringify({ custom_id, method: "POST", url: "/v1/completions", body, ...more });

async function batchFolder(text: string | Uint8Array): Promise<BatchOptions> {
  const folder = await Deno.makeTempDir({ prefix: "omnibus-batch-" }), input = join(folder, "in.jsonl");
  await Deno.writeFile(input, typeof text === "string" ? bytes(text) : text);
  return { input, output: join(folder, "out.jsonl"), settings: { model: 1 }, answer: fakeAnswer, limit: 7 };
}

const resultsIn = async (path: string): Promise<Result[]> =>
  (await Deno.readTextFile(path)).trimEnd().split("\n").map((line) => JSON.parse(line));

/** What a batch says, whatever the order. */
const sorted = (results: Result[]) => results.map((result) => JSON.stringify(result)).sort();

Deno.test("a batch that was cut off after any byte is taken up where it was: nothing is lost, nothing done twice", async () => {
  const lines = [...Array(4).keys()].map((i) => request(`é${i}`));
  const options = await batchFolder([...lines, "no JSON", lines[3]].join("\n"));
  assert.deepEqual(await runBatch(options), { results: 6, errors: 2, tokens: 0, found: 0 });
  const whole = await Deno.readFile(options.output), expected = sorted(await resultsIn(options.output));
  for (let cut = 0; cut <= whole.length; cut++) {
    await Deno.remove(options.output);
    await Deno.writeFile(`${options.output}.partial`, whole.subarray(0, cut));
    const asked: number[] = [];
    const answer = (entry: Entry) => (asked.push(entry.number), fakeAnswer(entry));
    const { found, ...tally } = await runBatch({ ...options, answer });
    assert.deepEqual(tally, { results: 6, errors: 2, tokens: 0 });
    assert.equal(asked.length, 6 - found, `cut at ${cut}`);
    assert.deepEqual(sorted(await resultsIn(options.output)), expected, `cut at ${cut}`);
  }
  const again = await runBatch({ ...options, answer: () => assert.fail("it was whole") });
  assert.deepEqual(again, { results: 6, errors: 2, tokens: 0, found: 6 });
});

Deno.test("a run that throws leaves what it had, and the next one asks only for the rest", async () => {
  const options = await batchFolder([...Array(50).keys()].map((i) => request(`a${i}`)).join("\n") + "\n");
  const broken = ({ number, ...entry }: Entry) =>
    number === 30 ? Promise.reject(new Error("no power")) : fakeAnswer({ number, ...entry });
  await assert.rejects(runBatch({ ...options, answer: broken }), /no power/);
  const left = (await resultsIn(`${options.output}.partial`)).length;
  assert.ok(left > 10 && left < 50, `${left}`);
  assert.deepEqual(await runBatch(options), { results: 50, errors: 0, tokens: 0, found: left });
  const ids = (await resultsIn(options.output)).map(({ custom_id }) => custom_id);
  assert.equal(new Set(ids).size, 50);
});

Deno.test("what cannot be read gets an error line with a code, a sentence and its line number", async () => {
  const bad: [code: string, message: RegExp, line: string | Uint8Array][] = [
    ["invalid_json_line", /no JSON: /, "{"],
    ["invalid_json_line", /no JSON object/, "[1]"],
    ["invalid_json_line", /not UTF-8/, Uint8Array.of(0x22, 0xff, 0x22)],
    ["invalid_json_line", /longer than 16777216 bytes/, JSON.stringify("x".repeat(1 << 24))],
    ["invalid_custom_id", /must be a text/, request(undefined)],
    ["invalid_custom_id", /must be a text/, request(7)],
    ["invalid_method", /must be POST: it is "GET"/, request("m", {}, { method: "GET" })],
    ["invalid_url", /it is "\/v1\/embeddings"/, request("u", {}, { url: "/v1/embeddings" })],
    ["invalid_request", /body must be an object: it is missing/, request("b", null, { body: undefined })],
    ["duplicate_custom_id", /custom_id "good" stands in a line before/, request("good")],
    ["duplicate_custom_id", /stands in a line before/, request("m")],
  ];
  const good = bytes(`\uFEFF${request("good")}\r\n\n  \n`);
  const options = await batchFolder(
    new Uint8Array(await new Blob([good, ...bad.flatMap(([, , line]) => [line as BlobPart, "\n"])]).arrayBuffer()),
  );
  const { errors, results } = await runBatch(options);
  assert.deepEqual([errors, results], [bad.length, bad.length + 1]);
  const byLine = new Map((await resultsIn(options.output)).map((result) => [result.error?.line, result]));
  for (const [i, [code, message]] of bad.entries()) {
    const { error, response } = byLine.get(i + 4)!;
    assert.deepEqual([error!.code, response], [code, null], `line ${i + 4}`);
    assert.match(error!.message, message);
    assert.match(error!.message, /\.$/);
  }
  assert.equal(byLine.get(undefined)!.custom_id, "good");
});

Deno.test("an output of another input, of other settings, or of another program is not gone on with", async () => {
  const options = await batchFolder(request("a")), answer = () => Promise.reject(new Error("cut"));
  await Deno.writeTextFile(`${options.output}.partial`, `{"id": "else"}\n`);
  await assert.rejects(runBatch(options), /RangeError: Cannot go on with .*\.partial: its line 1 is no result/);
  await Deno.remove(`${options.output}.partial`);
  await assert.rejects(runBatch({ ...options, answer }), /cut/);
  await runBatch(options);
  await assert.rejects(runBatch({ ...options, settings: { model: 2 } }), /RangeError: Cannot go on with .*out\.jsonl:/);
  await Deno.writeTextFile(options.input, request("b"));
  await assert.rejects(runBatch(options), /RangeError: Cannot go on with/);
  assert.ok(!await Deno.stat(`${options.output}.partial`).catch(() => null), "no empty file is left behind");
});

Deno.test("two runs do not write one output", async () => {
  const options = await batchFolder(request("a") + "\n" + request("b")), gate = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  const answer = async (entry: Entry) => {
    started.resolve();
    await gate.promise;
    return await fakeAnswer(entry);
  };
  const first = runBatch({ ...options, answer });
  await started.promise;
  await assert.rejects(runBatch(options), /RangeError: Cannot write .*out\.jsonl\.partial: another run does/);
  gate.resolve();
  assert.equal((await first).results, 2);
});

Deno.test("an input that changes while it is read ends the run, and never becomes an output", async () => {
  for (const other of [request("c"), [..."abcdefgh"].map((id) => request(id)).join("\n")]) {
    const options = await batchFolder(request("a"));
    await assert.rejects(
      runBatch({ ...options, onProgress: ({ results }) => results || Deno.writeTextFileSync(options.input, other) }),
      /The input changed/,
    );
    assert.ok(!await Deno.stat(options.output).catch(() => null));
  }
});

Deno.test("lines come out whole wherever the chunks are cut", async () => {
  const text = "ab\n\ncdé\r\n \nf", whole = bytes(text), random = seededRandom(1);
  for (let round = 0; round < 50; round++) {
    const buffer = new Uint8Array(16); // used again for each chunk, as a reader of files does
    const chunks = async function* () {
      for (let at = 0; at < whole.length;) {
        const chunk = whole.subarray(at, at += 1 + Math.floor(random() * 4));
        buffer.set(chunk);
        yield buffer.subarray(0, chunk.length);
        buffer.fill(0);
      }
    };
    assert.deepEqual(await Array.fromAsync(readLines(chunks())), [
      { number: 1, text: "ab" },
      { number: 3, text: "cdé\r" },
      { number: 5, text: "f" },
    ]);
  }
});

Deno.test("a line takes less than 64 bytes of bookkeeping, and no name is forgotten or made up", () => {
  const names = 100_000, seen = new FirstSeen(names), done = new DoneLines(names);
  const first = [...Array(names).keys()].filter((i) => seen.add(`name ${i}`));
  assert.equal(first.length, names);
  assert.ok([...Array(names).keys()].every((i) => !seen.add(`name ${i}`)));
  assert.ok(seen.bytes + names / 8 <= 64 * names, `${seen.bytes / names} bytes a name`);
  for (let line = 1; line <= names; line += 3) done.add(line);
  assert.equal([...Array(names + 1).keys()].filter((line) => done.has(line)).length, Math.ceil(names / 3));
});

Deno.test("an entry keeps what its line says", () => {
  const text = request("a", { prompt: [1, 2], max_tokens: 3 });
  assert.deepEqual(readEntry({ number: 5, text }), {
    number: 5,
    customId: "a",
    body: { prompt: [1, 2], max_tokens: 3 },
  });
});
