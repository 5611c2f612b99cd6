/** Where downloads and measurements are kept. */

import { join, resolve } from "node:path";

/** The user's cache, shared by all copies of the project: OMNIBUS_CACHE, or `omnibus` where the system has caches. */
export function cacheFolder(): string {
  const own = Deno.env.get("OMNIBUS_CACHE");
  if (own) return resolve(own);
  const home = Deno.env.get("HOME") ?? Deno.env.get("USERPROFILE");
  const system = new Map([
    ["windows", Deno.env.get("LOCALAPPDATA")],
    ["darwin", home && join(home, "Library", "Caches")],
    ["linux", Deno.env.get("XDG_CACHE_HOME")],
  ]).get(Deno.build.os);
  const caches = system || home && join(home, ".cache");
  if (!caches) throw new RangeError("Cannot tell where your caches are. Set OMNIBUS_CACHE to a folder for downloads.");
  return join(caches, "omnibus");
}
