/**
 * Gets a model into `models/`, whole or not at all: everything happens in a folder beside it, under a lock, and ends with
 * one rename, after every file has the checksum that the hub lists and the whole can be opened as a model. What was cut
 * short is resumed by the next run.
 */

import { join } from "node:path";
import { freeBytes } from "../util/disk.ts";
import { checkWritable } from "../util/files.ts";
import { formatBytes } from "../util/format.ts";
import { lockFile } from "../util/lock.ts";
import { HubCache } from "./cache.ts";
import { type HubFile, isIntact } from "./checksum.ts";
import { smallFiles, weightFiles } from "./choose.ts";
import { type ClientOptions, HubClient } from "./client.ts";
import { downloadFile, partialName } from "./download.ts";
import { HubError } from "./error.ts";
import { type FolderRecord, readRecord, verifyFiles, writeRecord } from "./folder.ts";
import { listFiles, type Listing } from "./listing.ts";
import { type HubModel, hubModel, MODELS_FOLDER } from "./name.ts";
import { retry, type RetryOptions } from "./retry.ts";
import { type HubSettings, hubSettings } from "./settings.ts";

export { HubError };

/** What a folder must hold to be a model: the hub brings files, and who wants a model knows what they should be. */
export interface ModelChecks {
  /** Throws if `config.json` in the folder is of no model that can be used. Asked before gigabytes come. */
  checkConfig(folder: string): Promise<void>;
  /** The names of the files with weights that the index at `path` lists. Throws if they are no names of files. */
  listedWeights(path: string): Promise<string[]>;
  /** Opens all parts as those do who run it; gives the number of weights. Throws if it cannot be run. */
  checkModel(folder: string): Promise<number>;
}

/** How to get a model. */
export interface InstallModelOptions extends ClientOptions, RetryOptions {
  /** A commit, branch or tag. Default: the pinned commit of a published size, else `main`. */
  revision?: string;
  /** The folder that the model's own one is made in. Default: `models/`. */
  into?: string;
  /** Send no request: use what is there, or in the Hugging Face cache. Default: what HF_HUB_OFFLINE says. */
  offline?: boolean;
  /** Where the hub is. Default: what the environment says. */
  settings?: HubSettings;
  /** Called every so often with the bytes that are here, and how many there will be. */
  onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** A model that is in its place. */
export interface InstalledModel {
  /** The path of its folder. */
  readonly folder: string;
  /** Where it is from; undefined if the folder was made by hand. */
  readonly record?: FolderRecord;
  /** The number of its weights. */
  readonly parameters: number;
  /** Whether it was there before. */
  readonly wasThere: boolean;
}

/** Where work in progress lies, with the locks, in the folder of all models. */
const WORK = ".downloads";

/**
 * Gets the model called `name`, unless it is there: then its checksums are verified again. Throws a RangeError for a name
 * that is none, for a folder that cannot be written and for what fails the checks, and a {@link HubError} for a model that
 * cannot be had.
 */
export async function installModel(
  name: string,
  checks: ModelChecks,
  options: InstallModelOptions = {},
): Promise<InstalledModel> {
  const model = hubModel(name, options.revision);
  const settings = options.settings ?? await hubSettings();
  const { into = MODELS_FOLDER } = options;
  const log = (line: string) => (options.log ?? console.error)(withoutToken(line, settings));
  const work = join(into, WORK), staging = join(work, model.folder), lock = `${staging}.lock`;
  const folder = join(into, model.folder);
  try {
    for (const path of [folder, work, staging, lock]) await refuseLink(path);
    await checkWritable(join(work, "any")).catch((cause) => {
      throw new RangeError(`Cannot put a model into ${into}: ${cause.message}. Name another folder.`, { cause });
    });
    using _lock = await lockFile(lock, () => log(`Waiting for another process that is getting ${name}.`));
    if (await kindOf(folder)) return await verify(folder, checks, options.revision);

    await Deno.mkdir(staging, { recursive: true });
    const record = await fill(staging, model, checks, settings, { ...options, log });
    const parameters = await orRefuse(staging, model, () => checks.checkModel(staging));
    await writeRecord(staging, record);
    await Deno.rename(staging, folder);
    return { folder, record, parameters, wasThere: false };
  } catch (error) {
    throw errorWithoutToken(
      error instanceof HubError ? new HubError(`Cannot get ${model.repository}: ${error.message}.`) : error as Error,
      settings,
    );
  }
}

/** Names of files and what is in them may be quoted, and a hub could put there what it was sent. */
function withoutToken(text: string, { token }: HubSettings): string {
  return token ? text.replaceAll(token, "…") : text;
}

function errorWithoutToken(error: Error, settings: HubSettings): Error {
  if (!settings.token || !Deno.inspect(error).includes(settings.token)) return error;
  const Kind = error instanceof HubError ? HubError : RangeError;
  return new Kind(withoutToken(error.message, settings));
}

/** What is there already: right, or in the way. */
async function verify(
  folder: string,
  { checkModel }: ModelChecks,
  revision: string | undefined,
): Promise<InstalledModel> {
  const record = await readRecord(folder);
  if (record) await verifyFiles(folder, record);
  if (revision && record && ![record.commit, record.revision].includes(revision)) {
    throw new HubError(`${folder} holds commit ${record.commit}. Remove it to get ${revision} instead`);
  }
  return { folder, record, parameters: await checkModel(folder), wasThere: true };
}

/** Brings all files of a model into the staging folder: by links into the cache, else from the hub. */
async function fill(
  staging: string,
  model: HubModel,
  { checkConfig, listedWeights }: ModelChecks,
  settings: HubSettings,
  options: InstallModelOptions,
): Promise<FolderRecord> {
  const cache = new HubCache(settings.cache);
  const client = options.offline ?? settings.offline ? undefined : new HubClient(settings, options);
  const listing = await (client ? retry(() => listFiles(client, model), options) : cache.listFiles(model));
  if (!listing) throw new HubError(`revision ${model.revision} is not in ${cache.folder}. Go online to download it`);
  const { repository, revision } = model, { commit } = listing, source = { repository, commit };
  await clean(staging, listing);

  const small = smallFiles(listing);
  await bring(small);
  await orRefuse(staging, model, () => checkConfig(staging));
  const weights = await orRefuse(staging, model, () => weightFiles(listing, staging, listedWeights));
  const smallBytes = sum(small), total = smallBytes + sum(weights);
  await bring(weights, (bytes) => options.onProgress?.(smallBytes + bytes, total));
  return { repository, revision, commit, files: [...small, ...weights] };

  async function bring(files: readonly HubFile[], onBytes: (bytes: number) => void = () => {}): Promise<void> {
    let done = 0;
    const missing = [];
    for (const file of files) {
      const path = join(staging, file.name);
      if (await isIntact(path, file) || await cache.link(source, file, path)) onBytes(done += file.size);
      else missing.push(file);
    }
    if (missing.length) await download(missing, (bytes) => onBytes(done + bytes));
  }

  async function download(files: readonly HubFile[], onBytes: (bytes: number) => void): Promise<void> {
    if (!client) throw new HubError(`${files[0].name} is not whole in ${cache.folder}. Go online to download it`);
    await checkSpace(staging, files);
    let done = 0;
    for (const file of files) {
      let most = 0;
      const attempt = () =>
        downloadFile(client, source, file, staging, (bytes) => {
          most = Math.max(most, bytes);
          onBytes(done + bytes);
        });
      await retry(attempt, { ...options, progress: () => most });
      done += file.size;
    }
  }
}

/** Keeps of an earlier run what this one can use, and no links: they could lead the writing anywhere. */
async function clean(staging: string, { files }: Listing): Promise<void> {
  const useful = new Set([...files.values()].flatMap((file) => {
    const partial = partialName(file);
    return [file.name, partial, `${partial}.etag`];
  }));
  for await (const { name, isFile } of Deno.readDir(staging)) {
    if (!isFile || !useful.has(name)) await Deno.remove(join(staging, name), { recursive: true });
  }
}

/** Runs a check of what was downloaded; if it fails, nothing of that stays, and the error speaks of the repository. */
async function orRefuse<T>(staging: string, { repository }: HubModel, check: () => Promise<T>): Promise<T> {
  try {
    return await check();
  } catch (error) {
    await Deno.remove(staging, { recursive: true });
    throw new RangeError((error as Error).message.replaceAll(staging, repository), { cause: error });
  }
}

async function checkSpace(staging: string, files: readonly HubFile[]): Promise<void> {
  const free = await freeBytes(staging);
  let needed = sum(files);
  for (const file of files) {
    needed -= (await Deno.stat(join(staging, partialName(file))).catch(() => ({ size: 0 }))).size;
  }
  if (needed <= free) return;
  throw new HubError(
    `it needs ${formatBytes(needed)} more in ${staging}, and that disk has ${formatBytes(free)} free. Make room`,
  );
}

/** A link where a folder or a file of ours belongs would lead out of the models' folder. */
async function refuseLink(path: string): Promise<void> {
  if ((await kindOf(path))?.isSymlink) throw new HubError(`${path} is a link, and may lead anywhere. Remove it`);
}

async function kindOf(path: string): Promise<Deno.FileInfo | null> {
  return await Deno.lstat(path).catch(() => null);
}

function sum(files: readonly HubFile[]): number {
  return files.reduce((total, { size }) => total + size, 0);
}
