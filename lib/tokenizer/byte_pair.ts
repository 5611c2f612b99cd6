/** Text to token ids and back: the byte-level byte-pair tokenizer of GPT-2. */

import { Tokenizer as BytePairTokenizer } from "@huggingface/tokenizers";
import { type Batch, padBatch, type PaddingSide } from "./batch.ts";
import { TextStream } from "./text_stream.ts";

/** How prompts become a batch. */
export interface TokenizeOptions {
  /** Fill rows up to the longest one; without it rows keep their lengths. */
  padding?: boolean;
  /** Where the filling goes: `left` unless told otherwise. */
  paddingSide?: PaddingSide;
}

/** How token ids become text. */
export interface DecodeOptions {
  /** Leave out tokens such as `<|endoftext|>`. */
  skipSpecialTokens?: boolean;
}

/** Call it with prompts to get a {@link Batch}: `tokenizer(prompts, { padding: true })`. */
export interface Tokenizer {
  /**
   * Tokenizes one prompt or many, a row each. An empty prompt becomes the end-of-text token alone, with which GPT-2
   * starts a text. The text of a special token, such as `<|endoftext|>`, becomes that token.
   */
  (prompts: string | readonly string[], options?: TokenizeOptions): Batch;
  /** The tokens of `text`: none for an empty one. */
  encode(text: string): number[];
  /** The text of `ids`. Bytes that are not UTF-8 read as U+FFFD; an id without a token adds nothing. */
  decode(ids: readonly number[], options?: DecodeOptions): string;
  /** Decodes one row's tokens as they come. */
  stream(options?: DecodeOptions): TextStream;
  /** How one token reads in a picture: its text, or `\xE6\x97` for bytes that are part of a character. */
  tokenToText(id: number): string;
  /** The token that ends a text. */
  readonly eosTokenId: number;
  /** The token that fills rows up; in GPT-2 the same one. */
  readonly padTokenId: number;
  /** One more than the highest id. */
  readonly vocabSize: number;
}

// deno-lint-ignore no-explicit-any -- the two files are checked below, field by field, where they are used
type Json = any;

/**
 * The tokenizer that a parsed `tokenizer.json` describes, with the names that a parsed `tokenizer_config.json` gives to its
 * special tokens. Throws a RangeError that names `path` if this is not GPT-2's kind.
 */
export function bytePairTokenizer(json: Json, config: Json, path: string): Tokenizer {
  if (json?.model?.type !== "BPE" || json.decoder?.type !== "ByteLevel") {
    const [model, decoder] = [json?.model, json?.decoder].map((part) => String(part?.type).slice(0, 40));
    throw new RangeError(
      `Cannot use ${path}: its model is ${model} with decoder ${decoder}. ` +
        "This library reads GPT-2's kind, BPE with ByteLevel.",
    );
  }
  const vocabulary = load(json, config, path);
  const added = vocabulary.get_added_tokens_decoder();
  const idOf = (name: "eos_token" | "pad_token") => vocabulary.token_to_id(config[name]?.content ?? config[name]);
  const eosTokenId = idOf("eos_token") ?? vocabulary.token_to_id("<|endoftext|>");
  if (eosTokenId === undefined) {
    throw new RangeError(
      `Cannot use ${path}: it has no <|endoftext|>. Name the last token as eos_token in tokenizer_config.json.`,
    );
  }
  const padTokenId = idOf("pad_token") ?? eosTokenId;

  const read = (id: number): Uint8Array | string => {
    if (!Number.isInteger(id) || id < 0) {
      throw new RangeError(`Cannot decode the token id ${id}: ids are whole numbers from 0 up.`);
    }
    return added.get(id)?.content ?? tokenBytes(vocabulary.id_to_token(id) ?? "");
  };
  const stream = ({ skipSpecialTokens = false }: DecodeOptions = {}) =>
    new TextStream(skipSpecialTokens ? (id) => added.get(id)?.special ? NOTHING : read(id) : read);
  const encode = (text: string): number[] => vocabulary.encode(text).ids;

  const tokenize = (prompts: string | readonly string[], { padding, paddingSide }: TokenizeOptions = {}): Batch => {
    const rows = checkPrompts(prompts).map((prompt) => prompt === "" ? [eosTokenId] : encode(prompt));
    if (padding) return padBatch(rows, { padTokenId, side: paddingSide });
    return { inputIds: rows, attentionMask: rows.map((row) => row.map(() => 1)) };
  };
  return Object.assign(tokenize, {
    encode,
    decode(ids: readonly number[], options?: DecodeOptions): string {
      const text = stream(options);
      return ids.map((id) => text.push(id)).join("") + text.end();
    },
    stream,
    tokenToText(id: number): string {
      const piece = read(id);
      return typeof piece === "string" ? piece : textOrBytes(piece);
    },
    eosTokenId,
    padTokenId,
    vocabSize: [...vocabulary.get_vocab().values()].reduce((size, id) => Math.max(size, id + 1), 0),
  });
}

/**
 * GPT-2's pattern for splitting text into words. Given as a `Split`, its `\s` is Unicode's white space, as in GPT-2; the
 * pattern built into `ByteLevel` uses JavaScript's, which has U+FEFF and lacks U+0085.
 */
const WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

function load(json: Json, config: Json, path: string): BytePairTokenizer {
  const splitter = json.pre_tokenizer;
  if (splitter?.type === "ByteLevel" && splitter.use_regex !== false && !splitter.add_prefix_space) {
    const split = { type: "Split", pattern: { Regex: WORDS }, behavior: "Isolated", invert: false };
    const pretokenizers = [split, { ...splitter, use_regex: false }];
    json = { ...json, pre_tokenizer: { type: "Sequence", pretokenizers } };
  }
  try {
    return new BytePairTokenizer(json, config);
  } catch (cause) {
    throw new RangeError(`Cannot use ${path}: ${(cause as Error).message}. Download the model again.`, { cause });
  }
}

function checkPrompts(prompts: string | readonly string[]): readonly string[] {
  const rows = typeof prompts === "string" ? [prompts] : prompts;
  if (!Array.isArray(rows)) {
    throw new TypeError(`Cannot tokenize ${typeof prompts}: pass a string or an array of strings.`);
  }
  if (rows.length === 0) throw new RangeError("Cannot tokenize an empty list: pass at least one prompt.");
  const bad = rows.findIndex((row) => typeof row !== "string");
  if (bad >= 0) throw new TypeError(`Cannot tokenize prompt ${bad}: it is of type ${typeof rows[bad]}. Pass strings.`);
  return rows;
}

const NOTHING = new Uint8Array();

/** The vocabulary writes each byte as one visible character: itself where it is visible, else one from U+0100 up. */
const BYTE_OF: ReadonlyMap<string, number> = (() => {
  const visible = (byte: number) => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  let next = 0x100;
  return new Map(Array.from({ length: 256 }, (_, byte) => [String.fromCharCode(visible(byte) ? byte : next++), byte]));
})();

function tokenBytes(token: string): Uint8Array {
  return Uint8Array.from(token, (character) => BYTE_OF.get(character) ?? 0x3f);
}

function textOrBytes(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return Array.from(bytes, (byte) => `\\x${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");
  }
}
