/**
 * How much memory this process can still get: the machine's, or what a control group leaves of it. Containers, systemd
 * services and batch systems limit processes by such groups on Linux, and end those that take more without a word.
 */

import { dirname, join, relative } from "node:path/posix";
import { readText } from "./proc.ts";

/** A file's text; undefined if it cannot be read. */
type Read = (path: string) => string | undefined;

/**
 * Bytes that this process can still get: the smaller of what the machine has free and what its control groups allow.
 * Infinity in a browser, which does not tell.
 */
export function availableMemory(): number {
  if (!globalThis.Deno) return Infinity;
  const machine = Deno.systemMemoryInfo().available;
  return Deno.build.os === "linux" ? Math.min(machine, cgroupMemory(readText)) : machine;
}

/**
 * Bytes that control groups leave to this process; Infinity if none limits it. A group within groups gets what the
 * tightest of them leaves. `read` stands for the file system.
 *
 * Both versions of control groups may be mounted at a time. See the kernel's documentation, admin-guide/cgroup-v1/memory
 * and admin-guide/cgroup-v2.
 */
export function cgroupMemory(read: Read): number {
  const left = [Infinity];
  for (const { top, own, files } of hierarchies(read)) {
    for (let folder = own;; folder = dirname(folder)) {
      left.push(leftIn(folder, files, read));
      if (folder === top) break;
    }
  }
  return Math.max(0, Math.min(...left));
}

/** What the files of a group are called that count memory, and the prefix of what it and those below it use together. */
interface GroupFiles {
  limit: string;
  usage: string;
  prefix: string;
}

const VERSION_1: GroupFiles = { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", prefix: "total_" };
const VERSION_2: GroupFiles = { limit: "memory.max", usage: "memory.current", prefix: "" };

/** The groups of this process: in each mounted hierarchy that counts memory, the topmost one that is visible and its own. */
function hierarchies(read: Read): { top: string; own: string; files: GroupFiles }[] {
  const groups = lines(read("/proc/self/cgroup")).map((line) => /^\d+:([^:]*):(.*)$/.exec(line));
  const pathOf = (isOurs: (controllers: string) => boolean) => groups.find((group) => group && isOurs(group[1]))?.[2];
  return lines(read("/proc/self/mountinfo")).flatMap((line) => {
    const [mount, source = ""] = line.split(" - "), [, , , root, top] = mount.split(" ").map(unescaped);
    const [type, , options = ""] = source.split(" ");
    const files = type === "cgroup2"
      ? VERSION_2
      : type === "cgroup" && options.split(",").includes("memory")
      ? VERSION_1
      : undefined;
    if (!files) return [];
    const path = pathOf((controllers) =>
      files === VERSION_2 ? controllers === "" : controllers.split(",").includes("memory")
    );
    if (path === undefined) return [];
    const below = relative(root, path); // a container may see no more than its own part of the hierarchy
    return [{ top, own: below.startsWith("..") ? top : join(top, below), files }];
  });
}

/** What one group leaves of its limit. What it caches of files counts as used, but is given back when memory gets short. */
function leftIn(folder: string, { limit, usage, prefix }: GroupFiles, read: Read): number {
  const most = wholeNumber(read(join(folder, limit))) ?? Infinity; // also where it says `max`
  if (most > Number.MAX_SAFE_INTEGER) return Infinity; //             version 1 says so with a very large number
  const used = wholeNumber(read(join(folder, usage))) ?? 0;
  const statistics = new Map(
    lines(read(join(folder, "memory.stat"))).map((line) => line.split(" ") as [string, string]),
  );
  const cached = ["inactive_file", "active_file"].map((name) => wholeNumber(statistics.get(prefix + name)) ?? 0);
  return most - used + cached[0] + cached[1];
}

function lines(text = ""): string[] {
  return text.split("\n").filter(Boolean);
}

function wholeNumber(text = ""): number | undefined {
  return /^\d+\s*$/.test(text) ? Number(text) : undefined;
}

/** Spaces and the like in paths are octal in `mountinfo`. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(parseInt(octal, 8)));
}
