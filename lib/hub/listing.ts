/** What a repository holds at a revision: one small JSON answer of the hub, checked field by field. */

import { quote } from "../util/quote.ts";
import type { HubFile } from "./checksum.ts";
import type { HubClient } from "./client.ts";
import { HubError } from "./error.ts";
import { type HubModel, isCommit } from "./name.ts";

/** The files of one commit. */
export interface Listing {
  /** The commit that the revision stands for. */
  readonly commit: string;
  /** What the repository holds, by name; files in its folders are left out. */
  readonly files: ReadonlyMap<string, HubFile>;
}

const MAX_LISTING_BYTES = 16_000_000;

/** Asks the hub, within the seconds that the client allows. Throws an Interruption or a HubError. */
export async function listFiles(client: HubClient, { repository, revision }: HubModel): Promise<Listing> {
  const path = `api/models/${repository}/revision/${encodeURIComponent(revision)}?blobs=true`;
  const json = await client.get(path, { accept: "application/json" }, async ({ chunks }) => {
    let text = "", size = 0;
    const decoder = new TextDecoder();
    for await (const chunk of chunks()) {
      if ((size += chunk.length) > MAX_LISTING_BYTES) throw new HubError("the hub's list of its files is far too long");
      text += decoder.decode(chunk, { stream: true });
    }
    return parse(text);
  }, client.listSeconds);
  const { sha, siblings } = json ?? {};
  if (typeof sha !== "string" || !isCommit(sha) || !Array.isArray(siblings)) {
    throw new HubError("the hub's answer is not a list of files. Check HF_ENDPOINT");
  }
  if (isCommit(revision) && sha !== revision) {
    throw new HubError(`the hub answers with commit ${sha} where ${revision} was asked for`);
  }
  return { commit: sha, files: new Map(siblings.flatMap(readFile).map((file) => [file.name, file])) };
}

// deno-lint-ignore no-explicit-any -- checked below, field by field
type Json = any;

function parse(text: string): Json {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // a page for people, perhaps
  }
}

/** One file; none if it lies in a folder or its entry lacks what is needed to check it. */
function readFile(entry: Json): HubFile[] {
  const name = entry?.rfilename, size = entry?.lfs?.size ?? entry?.size;
  const checksum = entry?.lfs ? entry.lfs.sha256 : entry?.blobId;
  const digits = entry?.lfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/;
  if (typeof name !== "string" || !/^[\w-][\w.-]{0,200}$/.test(name)) return [];
  if (!Number.isSafeInteger(size) || size < 0 || typeof checksum !== "string" || !digits.test(checksum)) {
    throw new HubError(`the hub gives no size and checksum for ${quote(name)}, so it could not be checked`);
  }
  return [{ name, size, checksum }];
}
