/**
 * Installs libtensorflow into the user's cache, from wheels that pip downloads. All work happens in a staging folder
 * beside the final one and ends with one rename, under a lock that the system drops when its holder dies: whatever
 * happens, what stands under the final name is complete, and the next run sweeps up what this one left.
 */

import { basename, join } from "node:path";
import { cacheFolder } from "../../util/cache_folder.ts";
import { freeBytes } from "../../util/disk.ts";
import { formatBytes } from "../../util/format.ts";
import { lockFile } from "../../util/lock.ts";
import { findLibtensorflow, installedLibtensorflow, installFolder, type Libtensorflow, VERSION } from "./locate.ts";
import { downloadWheel, findPip } from "./pip.ts";
import { unpack } from "./unpack.ts";
import { SetupError, type Wheel, wheelsFor } from "./wheels.ts";

export { SetupError };

/** How to install. */
export interface InstallLibtensorflowOptions {
  /** The build for NVIDIA GPUs. */
  cuda?: boolean;
  /** Gets lines for people to read. Default: stderr. */
  log?: (line: string) => void;
  /** Called every so often with the bytes downloaded and unpacked so far, and how many there will be. */
  onProgress?: (doneBytes: number, totalBytes: number) => void;
  /** How to call pip, e.g. `["python3.13", "-m", "pip"]`. Default: the first of the usual ways that works. */
  pip?: string[];
  /** What to install. Default: what is pinned for this machine. */
  wheels?: Wheel[];
}

/** Marks the names of folders that nothing uses: work in progress, or what is left of it. */
const STAGING = ".part-";
const LOCK = "libtensorflow.lock";

/** The libtensorflow to use, installed first if there is none. What the backend calls. */
export async function ensureLibtensorflow(options: InstallLibtensorflowOptions = {}): Promise<Libtensorflow> {
  return await findLibtensorflow() ?? await installLibtensorflow(options);
}

/** Installs libtensorflow, if it is not yet. Throws a {@link SetupError} when that cannot be done on this machine. */
export async function installLibtensorflow(options: InstallLibtensorflowOptions = {}): Promise<Libtensorflow> {
  const { cuda = false, log = console.error, wheels = wheelsFor(cuda) } = options;
  using _lock = await lockCache(log);
  const installed = await installedLibtensorflow(cuda); // perhaps just now, by the process that held the lock
  if (installed) return installed;

  const target = installFolder(cuda);
  await removeFolders((name) => name.includes(STAGING) || name === basename(target));
  const pip = options.pip ?? await findPip();
  const sizes = sizesOf(wheels);
  await checkSpace(sizes.peak);
  const [download, installation] = [sizes.download, sizes.installation].map(formatBytes);
  log(`Installing libtensorflow ${VERSION}: downloads ${download}, takes ${installation} in ${cacheFolder()}.`);

  const staging = await Deno.makeTempDir({ dir: cacheFolder(), prefix: basename(target) + STAGING });
  try {
    const onProgress = (done: number) => options.onProgress?.(done, sizes.download + sizes.installation);
    await fill(join(staging, "complete"), { wheels, pip, staging, onProgress });
    await Deno.rename(join(staging, "complete"), target);
  } catch (error) {
    throw /No space left|os error 112|quota exceeded/i.test(String(error)) ? tooSmall(sizes.peak, "is full") : error;
  } finally {
    await Deno.remove(staging, { recursive: true }).catch(() => {}); // the next run sweeps it
  }
  return (await installedLibtensorflow(cuda))!;
}

/** Removes every installed libtensorflow and what killed runs left; gives the folders that are gone. */
export async function removeLibtensorflow(log: (line: string) => void = console.error): Promise<string[]> {
  const cache = cacheFolder();
  if (!await Deno.stat(cache).catch(() => null)) return [];
  using _lock = await lockCache(log);
  const removed = await removeFolders(() => true);
  await Deno.remove(join(cache, LOCK));
  await Deno.remove(cache).catch(() => {}); // unless it holds other things
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
async function lockCache(log: (line: string) => void): Promise<Disposable> {
  const cache = cacheFolder();
  const onWait = () => log(`Waiting for another process that is setting up libtensorflow in ${cache}.`);
  return await lockFile(join(cache, LOCK), onWait).catch((error) => {
    throw new SetupError(
      `Cannot write into ${cache}: ${error.message}. ` +
        "Set OMNIBUS_CACHE to a folder where libtensorflow can be installed.",
    );
  });
}

/** Removes the folders of ours in the cache whose names are picked; gives those that were complete installations. */
async function removeFolders(picks: (name: string) => boolean): Promise<string[]> {
  const removed = [];
  for await (const { name, isDirectory } of Deno.readDir(cacheFolder())) {
    if (!isDirectory || !name.startsWith("libtensorflow-") || !picks(name)) continue;
    const path = join(cacheFolder(), name);
    if (name.includes(STAGING)) {
      // The pip of a killed run may still be at work in it: then the next run removes it.
      await Deno.remove(path, { recursive: true }).catch(() => {});
    } else {
      const renamed = `${path}${STAGING}${crypto.randomUUID()}`;
      await Deno.rename(path, renamed); // or else half of it could be left under its name
      await Deno.remove(renamed, { recursive: true });
      removed.push(path);
    }
  }
  return removed;
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

async function checkSpace(needed: number): Promise<void> {
  const free = await freeBytes(cacheFolder());
  if (needed > free) throw tooSmall(needed, `has ${formatBytes(free)} free`);
}

function tooSmall(needed: number, state: string): SetupError {
  return new SetupError(
    `Installing libtensorflow needs ${formatBytes(needed)} in ${cacheFolder()}, and that disk ${state}. ` +
      "Make room, or set OMNIBUS_CACHE to a folder on another disk.",
  );
}
