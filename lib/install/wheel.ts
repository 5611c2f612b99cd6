/** What a native library is taken from: Python wheels, each pinned by size and hash. */

/** Why a library cannot be set up on this machine, and what would help. */
export class SetupError extends Error {
  /** The class's name. */
  override name = "SetupError";
}

/** One wheel, and what is taken from it. */
export interface Wheel {
  /** Its file name, which says its name, version and platforms. */
  file: string;
  /** Its size. */
  bytes: number;
  /** Its hash, in hexadecimal. */
  sha256: string;
  /** What is taken from it, by path inside the wheel, with its size. */
  libraries: Record<string, number>;
  /** The folder these go to, if it is not the one that they have in the wheel. */
  into?: string;
}
