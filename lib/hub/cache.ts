/** The cache that Hugging Face's own programs fill: read, linked to, never written. */

import { basename, join, sep } from "node:path";
import { feedFile, type HubFile, isIntact, startChecksum } from "./checksum.ts";
import type { FileSource } from "./download.ts";
import { HubError } from "./error.ts";
import type { Listing } from "./listing.ts";
import { type HubModel, isCommit, KNOWN_MODELS } from "./name.ts";

/**
 * `models--owner--name/` holds `refs/REVISION` (a commit), `snapshots/COMMIT/FILE`, and `blobs/CHECKSUM` to which the
 * snapshots link. Where links are not to be had, the snapshots hold the files themselves.
 */
export class HubCache {
  /** Of the folder that holds `models--owner--name`. */
  constructor(readonly folder: string) {}

  /** What the cache has of a model, in the form of the hub's own answer; undefined if it does not know the revision. */
  async listFiles({ repository, revision }: HubModel): Promise<Listing | undefined> {
    for (const folder of this.#foldersOf(repository)) {
      const commit = isCommit(revision)
        ? revision
        : (await Deno.readTextFile(join(folder, "refs", revision)).catch(() => "")).trim();
      const snapshot = join(folder, "snapshots", commit);
      if (!isCommit(commit) || !await isFolder(snapshot)) continue;
      const files = new Map<string, HubFile>();
      for await (const { name, isDirectory } of Deno.readDir(snapshot)) {
        if (!isDirectory) files.set(name, await readEntry(folder, snapshot, name));
      }
      return { commit, files };
    }
  }

  /** Makes `path` a link to a file, if the cache has it and it is intact; gives whether it has. */
  async link({ repository, commit }: FileSource, file: HubFile, path: string): Promise<boolean> {
    for (const folder of this.#foldersOf(repository)) {
      for (const cached of [join(folder, "blobs", file.checksum), join(folder, "snapshots", commit, file.name)]) {
        const isFile = (await Deno.lstat(cached).catch(() => null))?.isFile;
        if (!isFile || !await isIntact(cached, file)) continue;
        const target = await Deno.realPath(cached);
        await Deno.symlink(target, path, { type: "file" })
          .catch(() => Deno.copyFile(target, path)); // Windows lets not everybody make links
        return true;
      }
    }
    return false;
  }

  /** The published sizes had no owner once, and older caches still name them so. */
  #foldersOf(repository: string): string[] {
    const aliases = Object.entries(KNOWN_MODELS).filter(([, known]) => known.repository === repository);
    return [repository, ...aliases.map(([name]) => name)]
      .map((name) => join(this.folder, `models--${name.replace("/", "--")}`));
  }
}

/** What a snapshot says of a file. A link is named after the checksum that it leads to, among the repository's blobs. */
async function readEntry(folder: string, snapshot: string, name: string): Promise<HubFile> {
  const path = join(snapshot, name);
  const { isSymlink } = await Deno.lstat(path);
  const target = await Deno.realPath(path).catch(() => {
    throw new HubError(`${path} is a link to a file that is no longer there. Download it again`);
  });
  const { size } = await Deno.stat(target);
  if (!isSymlink) {
    const hash = startChecksum({ size, checksum: "?".repeat(64) });
    await feedFile(target, hash);
    return { name, size, checksum: hash.digest("hex") };
  }
  const blobs = await Deno.realPath(join(folder, "blobs")).catch(() => "");
  const checksum = basename(target);
  if (target !== blobs + sep + checksum || !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(checksum)) {
    throw new HubError(`${path} is a link that leaves the cache's own files. Remove it`);
  }
  return { name, size, checksum };
}

async function isFolder(path: string): Promise<boolean> {
  return (await Deno.stat(path).catch(() => null))?.isDirectory ?? false;
}
