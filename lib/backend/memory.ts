/** What a backend has memory for. */

import { formatBytes } from "../util/format.ts";
import type { Backend } from "./types.ts";

/** Throws a RangeError that says what needs `needed` bytes, and what to do, unless so many are free. */
export function checkAvailable(
  needed: number,
  backend: Pick<Backend, "availableMemory">,
  say: { what: string; part?: string; remedy: string },
): void {
  const available = backend.availableMemory() ?? Infinity;
  if (needed <= available) return;
  throw new RangeError(
    `Cannot ${say.what}: that needs ${Math.round(needed)} bytes (${formatBytes(needed)}${say.part ?? ""}), and no ` +
      `more than ${
        formatBytes(available)
      } are free, of the machine or of what its container, its service or its GPU lets this process have. ` +
      say.remedy,
  );
}
