/**
 * A batch from file to file: OpenAI's lines in, a result for each out, in the order in which they end. Neither file is ever in
 * memory; a line takes 25 bytes of bookkeeping. A run that was killed, at any moment, is taken up where it was.
 */

import { createHash, type Hash } from "node:crypto";
import { mapAsEnded } from "../util/map_as_ended.ts";
import { asDuplicate, type Entry, readEntry } from "./entry.ts";
import { FirstSeen } from "./first_seen.ts";
import { readChunks, readLines } from "./lines.ts";
import { type DoneLines, Partial, type Tally } from "./partial.ts";
import type { Outcome } from "./result.ts";

/** A batch. */
export interface BatchOptions {
  /** The file to read; it is read twice. */
  input: string;
  /** The file to write. */
  output: string;
  /** What answers depend on besides the input, as JSON. A run is only taken up with the same. */
  settings: unknown;
  /** Answers an entry. What it throws ends the run; the output so far stays. */
  answer: (entry: Entry) => Promise<Outcome>;
  /** How many entries are under way at once. */
  limit: number;
  /** Hears of the beginning, with what was there, and of each result. */
  onProgress?: (tally: Readonly<Tally>, total: number) => void;
}

/** What came out. */
export interface BatchSummary extends Tally {
  /** How many of the results were there already. */
  found: number;
}

/**
 * Answers all lines of a file. Throws a RangeError if the output is another batch's, or being written by another run, and an
 * Error if the input changes meanwhile.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { runBatch } from "./run.ts";
 *
 * const folder = await Deno.makeTempDir(), [input, output] = [`${folder}/in.jsonl`, `${folder}/out.jsonl`];
 * await Deno.writeTextFile(input, "no JSON\n");
 * const answer = ({ number, error }: { number: number; error?: { code: string; message: string } }) =>
 *   Promise.resolve({ response: null, error: { ...error!, line: number } });
 * const summary = await runBatch({ input, output, settings: {}, answer, limit: 1 });
 * assert.deepEqual(summary, { results: 1, errors: 1, tokens: 0, found: 0 });
 * ```
 */
export async function runBatch(options: BatchOptions): Promise<BatchSummary> {
  const { output, answer, limit, onProgress = () => {} } = options;
  using input = await Deno.open(options.input);
  const survey = await surveyed(input);
  const settings = createHash("sha256").update(JSON.stringify(options.settings)).digest("hex");
  const name = `batch-${survey.digest.slice(0, 16)}-${settings.slice(0, 16)}`;
  const { partial, isWhole } = await Partial.open(output, name, survey.last);
  using _ = partial;
  const { tally, done } = partial, found = tally.results;
  if (isWhole) return { ...tally, found };
  onProgress(tally, survey.count);
  const hash = createHash("sha256"), entries = undone(readLines(hashed(readChunks(input), hash)), survey.count, done);
  const results = mapAsEnded(entries, limit, async (entry) => ({
    id: partial.idOf(entry.number),
    custom_id: entry.customId,
    ...await answer(entry),
  }));
  for await (const result of results) {
    await partial.append(result);
    onProgress(tally, survey.count);
  }
  if (hash.digest("hex") !== survey.digest) throw new Error(CHANGED);
  await partial.finish();
  return { ...tally, found };
}

const CHANGED = "The input changed while it was read. Remove the output's .partial, and begin again.";

/** What is to be known of an input before its first line is answered: which one it is, its last line, and how many are not empty. */
async function surveyed(file: Deno.FsFile): Promise<{ digest: string; last: number; count: number }> {
  const hash = createHash("sha256");
  let last = 0, count = 0;
  for await (const { number } of readLines(hashed(readChunks(file), hash))) [last, count] = [number, count + 1];
  return { digest: hash.digest("hex"), last, count };
}

async function* hashed(chunks: AsyncIterable<Uint8Array>, hash: Hash): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) {
    hash.update(chunk);
    yield chunk;
  }
}

/** The entries that have no result yet. Of those that share a name, all but the first are errors. */
async function* undone(
  lines: ReturnType<typeof readLines>,
  count: number,
  done: DoneLines,
): AsyncGenerator<Entry, void> {
  const seen = new FirstSeen(count);
  for await (const line of lines) {
    if (count-- === 0) throw new Error(CHANGED);
    const entry = readEntry(line), isFirst = entry.customId === null || seen.add(entry.customId);
    if (!done.has(line.number)) yield isFirst ? entry : asDuplicate(entry);
  }
}
