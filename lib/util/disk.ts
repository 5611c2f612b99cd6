/** Room on a disk. */

/** The bytes that this user may still write to the disk of a folder. */
export async function freeBytes(folder: string): Promise<number> {
  const { statfs } = await import("node:fs/promises"); // not above: it would slow down every start
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}
