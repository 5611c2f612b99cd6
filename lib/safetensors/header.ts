/**
 * The header of a safetensors file: a small JSON object that says where each tensor lies. It is the one part of a model
 * that can lie to its reader, so it is read by its own grammar, in one pass, and every claim is checked against the file
 * before anything is allocated for it.
 */

import { quote } from "../util/quote.ts";

/** The types a file may declare, with the bytes of one element. */
export const DTYPE_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
  C64: 8,
} as const;

/** The type of a tensor's elements in a file. What a model computes with is the backend's `Dtype`. */
export type StoredDtype = keyof typeof DTYPE_BYTES;

/** What the header says about one tensor, and where its bytes lie. */
export interface TensorInfo {
  /** The type of its elements. */
  readonly dtype: StoredDtype;
  /** Its dimensions; none for a single number. */
  readonly shape: readonly number[];
  /** Where it begins, counted from the start of its file. */
  readonly byteOffset: number;
  /** The size of its elements together. */
  readonly byteLength: number;
}

/** A file is not what it says it is, or does not hold what is asked of it. The message names it. */
export class SafetensorsError extends RangeError {
  /** Tells it from other errors. */
  override name = "SafetensorsError";

  /** About the file at `path`: what is wrong with it and, where that helps, what to do. */
  constructor(path: string, problem: string, options?: ErrorOptions) {
    super(`Cannot read ${path}: ${problem}`, options);
  }
}

/** Reads a header. Its tensors must fill the file from `dataStart` to `fileSize`, without overlaps or holes. */
export function parseHeader(
  bytes: Uint8Array,
  { path, dataStart, fileSize }: { path: string; dataStart: number; fileSize: number },
): { tensors: Map<string, TensorInfo>; metadata: Map<string, string> } {
  const fail = (problem: string): never => {
    throw new SafetensorsError(path, `the header is not valid: ${problem}. Download or convert the model again.`);
  };
  const tensors = new Map<string, TensorInfo>();
  const metadata = new Map<string, string>();
  const json = new Scanner(decode(bytes, fail), fail);
  json.object((name) => {
    if (name === "__metadata__") json.object((key) => metadata.set(key, json.string()));
    else tensors.set(name, tensorInfo(json, name));
  });
  json.end();

  let end = dataStart;
  for (const [name, { byteOffset, byteLength }] of [...tensors].sort(([, a], [, b]) => order(a, b))) {
    if (byteOffset !== end) fail(`${quote(name)} begins at byte ${byteOffset} where ${end} is expected`);
    end += byteLength;
  }
  if (end !== fileSize) fail(`its tensors end at byte ${end} and the file has ${fileSize}`);
  return { tensors, metadata };

  function tensorInfo(json: Scanner, name: string): TensorInfo {
    let dtype = "", shape: number[] | undefined, offsets: number[] | undefined;
    json.object((key) => {
      if (key === "dtype") dtype = json.string();
      else if (key === "shape") shape = json.integers(MAX_RANK);
      else if (key === "data_offsets") offsets = json.integers(2);
      else fail(`${quote(name)} has the unknown key ${quote(key)}`);
    });
    if (!Object.hasOwn(DTYPE_BYTES, dtype)) fail(`${quote(name)} has the unknown dtype ${quote(dtype)}`);
    if (shape === undefined) return fail(`${quote(name)} has no shape`);
    if (offsets?.length !== 2) return fail(`${quote(name)} needs two data_offsets`);
    const [begin, end] = offsets;
    const byteLength = shape.reduce((product, length) => product * length, DTYPE_BYTES[dtype as StoredDtype]);
    if (!(byteLength === end - begin)) {
      fail(`${quote(name)}, ${dtype} [${shape}], needs ${byteLength} bytes and has ${end - begin}`);
    }
    return { dtype: dtype as StoredDtype, shape, byteOffset: dataStart + begin, byteLength };
  }
}

function decode(bytes: Uint8Array, fail: (problem: string) => never): string {
  if (bytes[0] !== "{".charCodeAt(0)) fail("it does not begin with {");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return fail("it is not UTF-8");
  }
}

/** More dimensions than any tensor has, few enough that a long list is refused before it is built. */
const MAX_RANK = 32;

/** By place in the file; a tensor without elements comes before the one that begins at the same byte. */
function order(a: TensorInfo, b: TensorInfo): number {
  return a.byteOffset - b.byteOffset || a.byteLength - b.byteLength;
}

/** Reads JSON of known shape from left to right: nothing can nest deeper than the caller asks, no key comes twice. */
class Scanner {
  #at = 0;

  constructor(readonly text: string, readonly fail: (problem: string) => never) {}

  /** `{"key": value, …}`: `member` reads the value of each key. */
  object(member: (key: string) => void): void {
    const seen = new Set<string>();
    this.#expect("{");
    if (this.#accept("}")) return;
    do {
      const key = this.string();
      if (seen.has(key)) this.fail(`the key ${quote(key)} comes twice`);
      seen.add(key);
      this.#expect(":");
      member(key);
    } while (this.#accept(","));
    this.#expect("}");
  }

  /** `[1, 2, …]`: at most `limit` whole numbers. */
  integers(limit: number): number[] {
    const values: number[] = [];
    this.#expect("[");
    if (this.#accept("]")) return values;
    do {
      if (values.length === limit) this.fail(`a list at character ${this.#at} has more than ${limit} numbers`);
      values.push(this.#integer());
    } while (this.#accept(","));
    this.#expect("]");
    return values;
  }

  string(): string {
    this.#expect('"');
    const start = this.#at - 1;
    for (let escaped = false;; this.#at++) {
      const character = this.text[this.#at];
      if (character === undefined) this.fail("a string does not end");
      if (character === '"' && !escaped) break;
      escaped = character === "\\" && !escaped;
    }
    try {
      return JSON.parse(this.text.slice(start, ++this.#at));
    } catch {
      return this.fail(`the string at character ${start} has an illegal character or escape`);
    }
  }

  end(): void {
    this.#skipSpace();
    if (this.#at !== this.text.length) this.fail(`something follows the object, at character ${this.#at}`);
  }

  #integer(): number {
    this.#skipSpace();
    const start = this.#at;
    while (this.text[this.#at] >= "0" && this.text[this.#at] <= "9") this.#at++;
    const digits = this.text.slice(start, Math.min(this.#at, start + 20));
    const value = Number(digits);
    if (String(value) !== digits || !Number.isSafeInteger(value)) {
      this.fail(`there is no whole number of reasonable size at character ${start}`);
    }
    return value;
  }

  #accept(mark: string): boolean {
    this.#skipSpace();
    if (this.text[this.#at] !== mark) return false;
    this.#at++;
    return true;
  }

  #expect(mark: string): void {
    if (!this.#accept(mark)) this.fail(`${mark} is expected at character ${this.#at}`);
  }

  #skipSpace(): void {
    while (" \t\r\n".includes(this.text[this.#at] ?? "end")) this.#at++;
  }
}
