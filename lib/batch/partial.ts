/**
 * The output of a batch while it is being made: `OUTPUT.partial`, a line for each that was answered, in the order in which
 * they ended. Each line's `id` names input, settings and line, so that any run that is killed can be taken up by another one.
 */

import { resolve } from "node:path";
import { writeAll } from "../util/files.ts";
import { readChunks, readLines } from "./lines.ts";
import { type Result, tokensOf } from "./result.ts";

/** What an output holds. */
export interface Tally {
  results: number;
  /** Those of the results that are errors. */
  errors: number;
  /** Tokens of the answers. */
  tokens: number;
}

/** Which of so many lines are done, a bit for each. */
export class DoneLines {
  readonly #bits: Uint8Array;

  /** For lines 1 to `last`. */
  constructor(last: number) {
    this.#bits = new Uint8Array((last >> 3) + 1);
  }

  has(line: number): boolean {
    return (this.#bits[line >> 3] & 1 << (line & 7)) !== 0;
  }

  add(line: number): void {
    this.#bits[line >> 3] |= 1 << (line & 7);
  }
}

/** The output of the batch called `name`, whose last line is `lastLine`. Nobody else writes it while it is open. */
export class Partial implements Disposable {
  readonly tally: Tally = { results: 0, errors: 0, tokens: 0 };
  readonly done: DoneLines;

  private constructor(
    private readonly file: Deno.FsFile,
    private readonly path: string,
    private readonly output: string,
    private readonly name: string,
    lastLine: number,
  ) {
    this.done = new DoneLines(lastLine);
  }

  /**
   * Opens the file of a run that was cut short, or begins one. Throws a RangeError if another run has it open, or if it is of
   * another batch. `isWhole` is true where the output was there already.
   */
  static async open(output: string, name: string, lastLine: number): Promise<{ partial: Partial; isWhole: boolean }> {
    const path = `${output}.partial`, file = await lockedFile(path);
    try {
      const partial = new Partial(file, path, output, name, lastLine);
      using whole = await openIfThere(output);
      if (whole) {
        if ((await file.stat()).size === 0) await Deno.remove(path);
        await partial.#take(whole, output);
        return { partial, isWhole: true };
      }
      await cutTornLine(file);
      await partial.#take(file, path);
      await file.seek(0, Deno.SeekMode.End);
      return { partial, isWhole: false };
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** The `id` of a line's result. */
  idOf(line: number): string {
    return `${this.name}-${line}`;
  }

  /** Adds a result, as one write. */
  async append(result: Result): Promise<void> {
    await writeAll(this.file, new TextEncoder().encode(JSON.stringify(result) + "\n"));
    this.#count(result);
  }

  /** Gives the output its name, once all of it is on the disk. */
  async finish(): Promise<void> {
    await this.file.syncData();
    await Deno.rename(this.path, this.output);
  }

  [Symbol.dispose](): void {
    this.file.close();
  }

  /** Reads what is in a file. */
  async #take(file: Deno.FsFile, path: string): Promise<void> {
    for await (const { number, text } of readLines(readChunks(file))) {
      const result = parse(text), line = this.#lineOf(result);
      if (!result || line === undefined) {
        throw new RangeError(
          `Cannot go on with ${path}: its line ${number} is no result of this input with these settings. ` +
            "Take those of the run before, or another --output, or move the file away.",
        );
      }
      this.done.add(line);
      this.#count(result);
    }
  }

  #lineOf(result: Result | undefined): number | undefined {
    const id = String(result?.id), begin = `${this.name}-`;
    return id.startsWith(begin) && /^\d+$/.test(id.slice(begin.length)) ? Number(id.slice(begin.length)) : undefined;
  }

  #count(result: Result): void {
    this.tally.results++;
    if (result.error) this.tally.errors++;
    this.tally.tokens += tokensOf(result);
  }
}

async function openIfThere(path: string): Promise<Deno.FsFile | null> {
  return await Deno.open(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  });
}

function parse(text: string | undefined): Result | undefined {
  try {
    return JSON.parse(text ?? "");
  } catch {
    return undefined;
  }
}

/** The file at `path`, made if need be, that nobody else has open in this way. */
async function lockedFile(path: string): Promise<Deno.FsFile> {
  for (;;) {
    const file = await Deno.open(path, { create: true, read: true, write: true });
    if (!await file.tryLock(true)) {
      file.close();
      throw new RangeError(`Cannot write ${resolve(path)}: another run does. Wait for it, or take another --output.`);
    }
    const [mine, current] = await Promise.all([file.stat(), Deno.stat(path).catch(() => null)]);
    if (current && mine.ino === current.ino) return file;
    file.close(); // the other run ended meanwhile, and gave it its name
  }
}

/** Cuts off what a run that was killed had begun to write. */
async function cutTornLine(file: Deno.FsFile): Promise<void> {
  let length = 0, whole = 0;
  for await (const chunk of readChunks(file)) {
    const end = chunk.lastIndexOf(10);
    if (end >= 0) whole = length + end + 1;
    length += chunk.length;
  }
  if (whole < length) await file.truncate(whole);
}
