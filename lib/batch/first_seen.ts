/** Which names were there before, for very many of them. */

import { createHash } from "node:crypto";

/** 16 bytes of SHA-256 for each name, in a table with open addressing that is two thirds full in the end: 24 bytes a name. */
export class FirstSeen {
  readonly #slots: number;
  /** Four words a slot; a free one has zeros. */
  readonly #table: Uint32Array;

  /** For at most so many names. */
  constructor(names: number) {
    this.#slots = Math.ceil(names * 1.5) + 1;
    this.#table = new Uint32Array(4 * this.#slots);
  }

  /** What it takes. */
  get bytes(): number {
    return this.#table.byteLength;
  }

  /** Takes a name in, and says whether it is the first time. */
  add(name: string): boolean {
    const digest = createHash("sha256").update(name).digest(), table = this.#table;
    const words = [0, 4, 8, 12].map((at) => digest.readUInt32LE(at));
    words[0] ||= 1; // zeros mean a free slot
    for (let slot = words[1] % this.#slots;; slot = (slot + 1) % this.#slots) {
      const at = 4 * slot;
      if (table[at] === 0) {
        table.set(words, at);
        return true;
      }
      if (words.every((word, i) => table[at + i] === word)) return false;
    }
  }
}
