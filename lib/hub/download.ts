/** Downloads one file: resumed where it was cut, and only under its own name once its checksum is right. */

import type { Hash } from "node:crypto";
import { writeAll } from "../util/files.ts";
import { feedFile, type HubFile, startChecksum } from "./checksum.ts";
import { type Answer, type HubClient, RANGE_NOT_SATISFIABLE } from "./client.ts";
import { HubError, Interruption } from "./error.ts";

/** Where a file comes from. */
export interface FileSource {
  /** `owner/name`. */
  readonly repository: string;
  /** 40 hexadecimal digits. */
  readonly commit: string;
}

/** What comes more slowly would take days. */
const SLOWEST_BYTES_PER_SECOND = 1000;

/** The name of a file that is not whole yet. It holds the checksum, so that no other file is ever continued. */
export function partialName({ name, checksum }: HubFile): string {
  return `${name}.${checksum.slice(0, 16)}.part`;
}

/**
 * Makes one attempt to get `file` into `folder`, going on where the last one ended. `onBytes` gets how much there is.
 * Throws an {@link Interruption} when another attempt may get further, and a {@link HubError} when the hub sends
 * something else than it listed.
 */
export async function downloadFile(
  client: HubClient,
  { repository, commit }: FileSource,
  file: HubFile,
  folder: string,
  onBytes: (bytes: number) => void = () => {},
): Promise<void> {
  const path = `${folder}/${partialName(file)}`;
  using partial = await Partial.open(path, file);
  const resumed = partial.bytes;
  onBytes(resumed);
  if (resumed < file.size || file.size === 0) {
    await client.get(`${repository}/resolve/${commit}/${file.name}`, await partial.rangeHeaders(), async (answer) => {
      checkClaims(answer, file, commit);
      await partial.startAt(answer.response);
      for await (const chunk of answer.chunks()) onBytes(await partial.add(chunk));
    }, client.listSeconds + (file.size - resumed) / SLOWEST_BYTES_PER_SECOND);
    if (partial.bytes < file.size) {
      throw new Interruption(`${file.name} ended after ${partial.bytes} of ${file.size} bytes`);
    }
  }
  if (!partial.isRight()) {
    await partial.discard();
    const wrong = `${file.name} does not have the checksum that the hub lists, ${file.checksum}`;
    if (resumed > 0) throw new Interruption(`${wrong}, after it was resumed`); // what was here may be the wrong part
    throw new HubError(`${wrong}. It was not kept; try again later, or check HF_ENDPOINT`);
  }
  await partial.finish(`${folder}/${file.name}`);
}

/** Refuses early what could only fail the checksum after gigabytes. */
function checkClaims({ commit: answered, checksum }: Answer, file: HubFile, commit: string): void {
  const claim = (answered ?? commit) !== commit
    ? `another commit than ${commit}, which was asked for`
    : checksum?.length === file.checksum.length && checksum !== file.checksum
    ? `a checksum that is not the listed ${file.checksum}`
    : undefined;
  if (claim) throw new HubError(`the hub answers for ${file.name} with ${claim}`);
}

/** The part of a file that has arrived, with the checksum of it so far. */
class Partial implements Disposable {
  bytes = 0;
  #hash: Hash;

  private constructor(readonly path: string, readonly expected: HubFile, readonly file: Deno.FsFile) {
    this.#hash = startChecksum(expected);
  }

  static async open(path: string, expected: HubFile): Promise<Partial> {
    const partial = new Partial(path, expected, await Deno.open(path, { create: true, write: true }));
    partial.bytes = await feedFile(path, partial.#hash);
    if (partial.bytes > expected.size) await partial.#restart();
    await partial.file.seek(partial.bytes, Deno.SeekMode.Start);
    return partial;
  }

  /** Asks for the rest, of the same file as before. */
  async rangeHeaders(): Promise<Record<string, string>> {
    if (this.bytes === 0) return {};
    const etag = await Deno.readTextFile(this.#etagPath).catch(() => "");
    return { range: `bytes=${this.bytes}-`, ...etag && { "if-range": etag } };
  }

  /** Goes on, or starts again when the server sends all of it. */
  async startAt({ status, headers }: Response): Promise<void> {
    const range = /^bytes (\d+)-\d*\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
    if (status === RANGE_NOT_SATISFIABLE || status === 206 && Number(range?.[1]) !== this.bytes) {
      await this.#restart();
      throw new Interruption(`${this.expected.name} cannot be resumed`);
    }
    if (status !== 206) await this.#restart();
    const etag = headers.get("etag") ?? "", isStrong = /^"[\x21\x23-\x7e]*"$/.test(etag); // a weak one is of no use here
    await (isStrong ? Deno.writeTextFile(this.#etagPath, etag) : Deno.remove(this.#etagPath).catch(() => {}));
  }

  /** Writes what comes next; gives the bytes so far. */
  async add(chunk: Uint8Array): Promise<number> {
    if (this.bytes + chunk.length > this.expected.size) {
      await this.discard();
      throw new HubError(`${this.expected.name} is longer than the ${this.expected.size} bytes that the hub lists`);
    }
    await writeAll(this.file, chunk);
    this.#hash.update(chunk);
    return this.bytes += chunk.length;
  }

  isRight(): boolean {
    return this.#hash.copy().digest("hex") === this.expected.checksum;
  }

  async finish(path: string): Promise<void> {
    await this.file.syncData();
    await Deno.remove(this.#etagPath).catch(() => {}); // first: after the other nothing would remind of it
    await Deno.rename(this.path, path);
  }

  async discard(): Promise<void> {
    await this.#restart();
    await Deno.remove(this.path);
    await Deno.remove(this.#etagPath).catch(() => {});
  }

  [Symbol.dispose](): void {
    this.file.close();
  }

  async #restart(): Promise<void> {
    await this.file.truncate(0);
    await this.file.seek(0, Deno.SeekMode.Start);
    this.#hash = startChecksum(this.expected);
    this.bytes = 0;
  }

  get #etagPath(): string {
    return `${this.path}.etag`;
  }
}
