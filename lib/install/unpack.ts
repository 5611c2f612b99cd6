/** Takes single files out of a zip archive, which is what a wheel is, in bounded memory. */

import { basename, dirname } from "node:path";
import { writeAll } from "../util/files.ts";
import { SetupError } from "./wheel.ts";

/** One file to take out. */
export interface Member {
  /** Its path in the archive. */
  name: string;
  /** The size that it must have. */
  bytes: number;
  /** The path to write it to. */
  destination: string;
}

/** Where the archive has a file's data, and how it is compressed: 0 not at all, 8 deflated. */
interface Entry {
  /** Whether it is a program. */
  executable: boolean;
  method: number;
  compressedBytes: number;
  headerOffset: number;
}

const PIECE_BYTES = 1 << 18;

/**
 * Writes `members` of the archive to their destinations and onto the disk; `onBytes` gets the size of each piece
 * written. Throws a {@link SetupError} when the archive is damaged or lacks one.
 */
export async function unpack(zip: string, members: Member[], onBytes: (bytes: number) => void): Promise<void> {
  using archive = await Deno.open(zip);
  try {
    const entries = await listEntries(archive);
    for (const { name, bytes, destination } of members) {
      const entry = entries.get(name);
      if (!entry) throw new SetupError(`${basename(zip)} holds no ${name}.`);
      const written = await write(destination, dataOf(archive, entry), onBytes);
      if (written !== bytes) throw new RangeError(`${name} has ${written} bytes instead of ${bytes}`);
      if (entry.executable && Deno.build.os !== "windows") await Deno.chmod(destination, 0o755);
    }
  } catch (error) {
    // Thrown below, or by what decodes the bytes; what the file system throws is neither.
    const isDamaged = error instanceof RangeError || error instanceof TypeError;
    throw isDamaged ? new SetupError(`${basename(zip)} is damaged: ${error.message}.`) : error;
  }
}

async function write(path: string, data: ReadableStream<Uint8Array>, onBytes: (bytes: number) => void) {
  await Deno.mkdir(dirname(path), { recursive: true });
  using output = await Deno.open(path, { write: true, create: true });
  let written = 0;
  for await (const piece of data) {
    await writeAll(output, piece);
    written += piece.length;
    onBytes(piece.length);
  }
  await output.syncData(); // or else a power cut could leave a complete name with incomplete data
  return written;
}

/** The archive's table of contents, which its last bytes point to (PKWARE's APPNOTE, sections 4.3.12 and 4.3.16). */
async function listEntries(archive: Deno.FsFile): Promise<Map<string, Entry>> {
  const { size } = await archive.stat();
  const tailLength = Math.min(size, 22 + 0xffff);
  const tail = await read(archive, size - tailLength, tailLength);
  let end = tailLength - 22;
  while (tail.getUint32(end, true) !== 0x06054b50) end--;
  const table = await read(archive, tail.getUint32(end + 16, true), tail.getUint32(end + 12, true));
  const entries = new Map<string, Entry>();
  for (let at = 0; at < table.byteLength;) {
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) => table.getUint16(at + field, true));
    entries.set(new TextDecoder().decode(new Uint8Array(table.buffer, at + 46, nameLength)), {
      executable: (table.getUint16(at + 40, true) & 0o100) !== 0, // Unix's mode, in the upper half of the attributes
      method: table.getUint16(at + 10, true),
      compressedBytes: table.getUint32(at + 20, true),
      headerOffset: table.getUint32(at + 42, true),
    });
    at += 46 + nameLength + extraLength + commentLength;
  }
  return entries;
}

function dataOf(archive: Deno.FsFile, entry: Entry): ReadableStream<Uint8Array> {
  const data = ReadableStream.from(pieces(archive, entry));
  return entry.method === 0 ? data : data.pipeThrough(new DecompressionStream("deflate-raw"));
}

async function* pieces(archive: Deno.FsFile, { headerOffset, compressedBytes }: Entry) {
  const header = await read(archive, headerOffset, 30);
  const start = headerOffset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  for (let at = 0; at < compressedBytes; at += PIECE_BYTES) {
    const piece = await read(archive, start + at, Math.min(PIECE_BYTES, compressedBytes - at));
    yield new Uint8Array(piece.buffer);
  }
}

async function read(archive: Deno.FsFile, position: number, length: number): Promise<DataView<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  await archive.seek(position, Deno.SeekMode.Start);
  for (let at = 0; at < length;) {
    const count = await archive.read(bytes.subarray(at));
    if (count === null) throw new RangeError("it ends too early");
    at += count;
  }
  return new DataView(bytes.buffer);
}
