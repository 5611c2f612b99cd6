/** A model's folder when it is complete: what it holds, where that came from, and whether it still does. */

import { join } from "node:path";
import { writeTextFile } from "../util/files.ts";
import { type HubFile, isIntact } from "./checksum.ts";
import { HubError } from "./error.ts";

/** The file beside the model's own that says where they are from. */
const RECORD = "hub.json";

/** Where a folder's files are from, and what they were. */
export interface FolderRecord {
  /** `owner/name` on the hub. */
  readonly repository: string;
  /** The branch, tag or commit that was asked for. */
  readonly revision: string;
  /** The commit that it stood for. */
  readonly commit: string;
  /** What was verified. */
  readonly files: readonly HubFile[];
}

/** Notes where the files in `folder` are from. */
export async function writeRecord(folder: string, record: FolderRecord): Promise<void> {
  await writeTextFile(join(folder, RECORD), JSON.stringify(record, null, 1) + "\n");
}

/** What {@link writeRecord} noted; undefined for a folder that was made by hand. */
export async function readRecord(folder: string): Promise<FolderRecord | undefined> {
  const text = await Deno.readTextFile(join(folder, RECORD)).catch(() => undefined);
  try {
    return text && JSON.parse(text);
  } catch {
    throw new HubError(`${join(folder, RECORD)} is not JSON. Remove ${folder} and run this again`);
  }
}

/** Throws a {@link HubError} if a file is no longer what was noted. */
export async function verifyFiles(folder: string, { files }: FolderRecord): Promise<void> {
  for (const file of files) {
    if (await isIntact(join(folder, file.name), file)) continue;
    throw new HubError(`${join(folder, file.name)} is not what was downloaded. Remove ${folder} and run this again`);
  }
}
