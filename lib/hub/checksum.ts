/** The two checksums that the hub gives: SHA-256 for large files, git's blob SHA-1 for small ones. */

import { createHash, type Hash } from "node:crypto";

/** A file as the hub lists it. */
export interface HubFile {
  /** Its name in the repository; never a path. */
  readonly name: string;
  /** Its size in bytes. */
  readonly size: number;
  /** 64 hexadecimal digits of SHA-256, or 40 of git's SHA-1. */
  readonly checksum: string;
}

/** Begins the checksum of a file's kind: feed it the content, and compare its hexadecimal digest. */
export function startChecksum({ checksum, size }: Pick<HubFile, "checksum" | "size">): Hash {
  return checksum.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

/** Feeds a file's content, from its start, and gives the number of bytes. */
export async function feedFile(path: string, hash: Hash): Promise<number> {
  using file = await Deno.open(path);
  const buffer = new Uint8Array(1 << 20);
  let bytes = 0;
  for (let count; (count = await file.read(buffer)) !== null; bytes += count) hash.update(buffer.subarray(0, count));
  return bytes;
}

/** Whether a file on disk has the size and the checksum it should have. */
export async function isIntact(path: string, expected: Pick<HubFile, "checksum" | "size">): Promise<boolean> {
  const { size } = await Deno.stat(path).catch(() => ({ size: -1 }));
  if (size !== expected.size) return false;
  const hash = startChecksum(expected);
  await feedFile(path, hash);
  return hash.digest("hex") === expected.checksum;
}
