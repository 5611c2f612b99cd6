/**
 * Installs native libraries into the user's cache, from wheels that pip downloads. All work happens in a staging folder
 * beside the final one and ends with one rename, under a lock that the system drops when its holder dies: whatever
 * happens, what stands under the final name is complete, and the next run sweeps up what this one left.
 *
 * The cache may be shared with others, who may have folders of such names: each folder that is made here holds a record of
 * it, and what has none is left alone.
 */

import { basename, join, relative } from "node:path";
import { cacheFolder } from "../util/cache_folder.ts";
import { freeBytes } from "../util/disk.ts";
import { formatBytes } from "../util/format.ts";
import { lockFile } from "../util/lock.ts";
import type { Package } from "./package.ts";
import { downloadWheel, findPip } from "./pip.ts";
import { unpack } from "./unpack.ts";
import { SetupError, type Wheel } from "./wheel.ts";

/** How to install. */
export interface InstallOptions {
  /** Gets lines for people to read. Default: stderr. */
  log?: (line: string) => void;
  /** Called every so often with the bytes downloaded and unpacked so far, and how many there will be. */
  onProgress?: (doneBytes: number, totalBytes: number) => void;
  /** How to call pip, e.g. `["python3.13", "-m", "pip"]`. Default: the first of the usual ways that works. */
  pip?: string[];
  /** What to install. Default: what is pinned for this machine. */
  wheels?: Wheel[];
}

/** One build of a package. */
export interface Build<Library> {
  /** The folder that it is installed in. */
  folder: string;
  /** What it is taken from. Throws a {@link SetupError} where there is nothing. */
  wheels: () => Wheel[];
  /** The library in that folder, or null if it is not there. */
  installed: () => Promise<Library | null>;
}

/** Marks the names of folders that nothing uses: work in progress, or what is left of it. */
const STAGING = ".part-";
/** In each folder that is made here: its files, itself among them, by their paths in it. */
const RECORD = "installed.json";

/** Installs a package, if it is not yet. Throws a {@link SetupError} when that cannot be done on this machine. */
export async function installPackage<Library>(
  what: Package,
  build: Build<Library>,
  options: InstallOptions = {},
): Promise<Library> {
  const { log = console.error, wheels = build.wheels() } = options;
  using _lock = await lockCache(what, log);
  const installed = await build.installed(); // perhaps just now, by the process that held the lock
  if (installed) return installed;

  const target = build.folder;
  await sweepStaging(what);
  await removeInstallation(target, (line) => {
    throw new SetupError(`${line} Move it away, or set OMNIBUS_CACHE to another folder.`);
  });
  const pip = options.pip ?? await findPip(what.name, `, or set ${what.variable} to a folder that holds ${what.name}`);
  const sizes = sizesOf(wheels);
  await checkSpace(what, sizes.peak);
  const [download, installation] = [sizes.download, sizes.installation].map(formatBytes);
  log(`Installing ${what.name} ${what.version}: downloads ${download}, takes ${installation} in ${cacheFolder()}.`);

  const staging = await Deno.makeTempDir({ dir: cacheFolder(), prefix: basename(target) + STAGING });
  try {
    await writeRecord(staging, []);
    const onProgress = (done: number) => options.onProgress?.(done, sizes.download + sizes.installation);
    await fill(join(staging, "complete"), { wheels, pip, staging, onProgress });
    await writeRecord(join(staging, "complete"), await filesIn(join(staging, "complete")));
    await Deno.rename(join(staging, "complete"), target);
  } catch (error) {
    const isFull = /No space left|os error 112|quota exceeded/i.test(String(error));
    throw isFull ? tooSmall(what, sizes.peak, "is full") : error;
  } finally {
    await Deno.remove(staging, { recursive: true }).catch(() => {}); // the next run sweeps it
  }
  return (await build.installed())!;
}

/**
 * Removes every version and build of a package that was installed here and what killed runs left; gives the folders that
 * are gone. `log` hears of what looks like one and stays, because it was not installed here, or holds files that were not.
 */
export async function removePackage(what: Package, log: (line: string) => void = console.error): Promise<string[]> {
  const cache = cacheFolder();
  if (!await Deno.stat(cache).catch(() => null)) return [];
  using _lock = await lockCache(what, log);
  await sweepStaging(what);
  const removed = [];
  for await (const { name, isDirectory } of Deno.readDir(cache)) {
    const path = join(cache, name);
    if (!isDirectory || !belongsTo(what, name) || name.includes(STAGING)) continue;
    if (await removeInstallation(path, log)) removed.push(path);
  }
  await Deno.remove(lockOf(what));
  // What OMNIBUS_CACHE names is the user's own, and what holds other things is still needed.
  if (!Deno.env.get("OMNIBUS_CACHE")) await Deno.remove(cache).catch(() => {});
  return removed;
}

/** Downloads the wheels one after the other and puts their libraries into `folder`. */
async function fill(
  folder: string,
  { wheels, pip, staging, onProgress }: {
    wheels: Wheel[];
    pip: string[];
    staging: string;
    onProgress: (doneBytes: number) => void;
  },
): Promise<void> {
  let done = 0;
  for (const wheel of wheels) {
    const file = await downloadWheel(pip, wheel, staging, (bytes) => onProgress(done + bytes));
    done += wheel.bytes;
    const members = Object.entries(wheel.libraries).map(([name, bytes]) => (
      { name, bytes, destination: join(folder, wheel.into ? join(wheel.into, basename(name)) : name) }
    ));
    await unpack(file, members, (bytes) => onProgress(done += bytes));
    await Deno.remove(file);
  }
}

/** Waits until no other process works in the cache. The lock ends when it is disposed of, or with this process. */
async function lockCache(what: Package, log: (line: string) => void): Promise<Disposable> {
  const cache = cacheFolder();
  const onWait = () => log(`Waiting for another process that is setting up ${what.name} in ${cache}.`);
  return await lockFile(lockOf(what), onWait).catch((error) => {
    throw new SetupError(
      `Cannot write into ${cache}: ${error.message}. ` +
        `Set OMNIBUS_CACHE to a folder where ${what.name} can be installed.`,
    );
  });
}

function lockOf({ name }: Package): string {
  return join(cacheFolder(), `${name.toLowerCase()}.lock`);
}

/** Whether a folder has the name of an installation of the package, of any version and build, or of its staging. */
function belongsTo({ name }: Package, folder: string): boolean {
  return folder.startsWith(`${name.toLowerCase()}-`);
}

/** Removes what killed runs left: folders of staging names with a record in them, or with nothing yet. */
async function sweepStaging(what: Package): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(cacheFolder())) {
    if (!isDirectory || !belongsTo(what, name) || !name.includes(STAGING)) continue;
    const path = join(cacheFolder(), name), recursive = await readRecord(path) !== null;
    // The pip of a killed run may still be at work in it: then the next run removes it.
    await Deno.remove(path, { recursive }).catch(() => {});
  }
}

/**
 * Removes an installation and says whether it did. Files in it that are not in its record stay, and a folder without a
 * record stays as it is; `log` hears of both.
 */
async function removeInstallation(path: string, log: (line: string) => void): Promise<boolean> {
  if (!await Deno.stat(path).catch(() => null)) return false;
  const record = await readRecord(path);
  if (!record) {
    log(`${path} stays: it was not installed here.`);
    return false;
  }
  const files = await filesIn(path), others = files.filter((file) => !record.includes(file));
  if (others.length) {
    log(`${path} stays with what was not installed here: ${others.join(", ")}.`);
    for (const file of files) if (record.includes(file)) await Deno.remove(join(path, file));
    return false;
  }
  const renamed = `${path}${STAGING}${crypto.randomUUID()}`;
  await Deno.rename(path, renamed); // or else half of it could be left under its name
  await Deno.remove(renamed, { recursive: true });
  return true;
}

async function writeRecord(folder: string, files: readonly string[]): Promise<void> {
  await Deno.writeTextFile(join(folder, RECORD), JSON.stringify({ files: [...files, RECORD] }, null, 1) + "\n");
}

/** The files of a folder that was made here, or null if there is no such record. */
async function readRecord(folder: string): Promise<string[] | null> {
  try {
    const { files } = JSON.parse(await Deno.readTextFile(join(folder, RECORD)));
    return Array.isArray(files) && files.includes(RECORD) ? files : null;
  } catch {
    return null;
  }
}

/** Everything below a folder that is no folder, by its path in it, with slashes. */
async function filesIn(folder: string, top = folder): Promise<string[]> {
  const files = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (isDirectory) files.push(...await filesIn(path, top));
    else files.push(relative(top, path).replaceAll("\\", "/"));
  }
  return files.sort();
}

/** The bytes to download, those that stay, and the most that are on the disk at a time. */
function sizesOf(wheels: Wheel[]): { download: number; installation: number; peak: number } {
  let download = 0, installation = 0, peak = 0;
  for (const { bytes, libraries } of wheels) {
    const unpacked = Object.values(libraries).reduce((sum, size) => sum + size);
    peak = Math.max(peak, installation + bytes + Math.max(bytes, unpacked)); // pip copies what it has downloaded
    download += bytes;
    installation += unpacked;
  }
  return { download, installation, peak };
}

async function checkSpace(what: Package, needed: number): Promise<void> {
  const free = await freeBytes(cacheFolder());
  if (needed > free) throw tooSmall(what, needed, `has ${formatBytes(free)} free`);
}

function tooSmall({ name }: Package, needed: number, state: string): SetupError {
  return new SetupError(
    `Installing ${name} needs ${formatBytes(needed)} in ${cacheFolder()}, and that disk ${state}. ` +
      "Make room, or set OMNIBUS_CACHE to a folder on another disk.",
  );
}
