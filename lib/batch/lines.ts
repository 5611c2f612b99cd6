/** The lines of a file of any size, of which no more is in memory than one of them. */

/** A line with something in it. */
export interface Line {
  /** From 1; empty lines count. */
  number: number;
  /** Undefined where there is a problem. */
  text?: string;
  /** Why it cannot be read, as the end of a sentence: "is not UTF-8". */
  problem?: string;
}

/** More than any request needs: a thousand prompts of a thousand tokens. */
const MOST_BYTES = 1 << 24;

const NEWLINE = 10;

/** The lines of some bytes, without those that hold nothing but spaces and tabs. A byte order mark before the first is no part of it. */
export async function* readLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Line, void> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let number = 0, parts: Uint8Array[] = [], length = 0;
  const add = (part: Uint8Array) => {
    length += part.length;
    if (length <= MOST_BYTES) parts.push(part);
  };
  const line = (): Line | undefined => {
    const bytes = length > MOST_BYTES ? undefined : joined(parts, length);
    [parts, length] = [[], 0];
    number++;
    if (!bytes) return { number, problem: `is longer than ${MOST_BYTES} bytes` };
    try {
      const text = decoder.decode(bytes);
      return /^[ \t\r]*$/.test(text) ? undefined : { number, text };
    } catch {
      return { number, problem: "is not UTF-8" };
    }
  };
  for await (const chunk of chunks) {
    let start = 0;
    for (let end; (end = chunk.indexOf(NEWLINE, start)) >= 0; start = end + 1) {
      add(chunk.subarray(start, end));
      const one = line();
      if (one) yield one;
    }
    if (start < chunk.length) add(chunk.slice(start)); // a copy: the reader may use its buffer again
  }
  const last = length > 0 ? line() : undefined;
  if (last) yield last;
}

/** The bytes of a file from its start, in one buffer that is used again and again. */
export async function* readChunks(file: Deno.FsFile): AsyncGenerator<Uint8Array, void> {
  await file.seek(0, Deno.SeekMode.Start);
  const buffer = new Uint8Array(1 << 16);
  for (let count; (count = await file.read(buffer)) !== null;) yield buffer.subarray(0, count);
}

function joined(parts: readonly Uint8Array[], length: number): Uint8Array {
  if (parts.length === 1) return parts[0];
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
