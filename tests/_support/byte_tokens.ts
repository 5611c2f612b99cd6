/** The vocabulary as bytes, read from `tokenizer.json` by itself: a reference that shares no code with the tokenizer. */

const { model: { vocab }, added_tokens }: {
  model: { vocab: Record<string, number> };
  added_tokens: { id: number; content: string }[];
} = JSON.parse(await Deno.readTextFile("models/small/tokenizer.json"));

/** GPT-2 writes the bytes that have a visible Latin-1 character as it, and the others as U+0100, U+0101, … in order. */
const visible = new Set(
  [..."!~¡¬®ÿ"].map((character) => character.charCodeAt(0)).flatMap((code, i, codes) =>
    i % 2 ? Array.from({ length: code - codes[i - 1] + 1 }, (_, j) => codes[i - 1] + j) : []
  ),
);
const hidden = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => !visible.has(byte));
const byteOf = (character: string) => {
  const code = character.codePointAt(0)!;
  return code < 0x100 ? code : hidden[code - 0x100];
};

/** The bytes of each token, by id. */
export const TOKEN_BYTES: readonly number[][] = (() => {
  const bytes: number[][] = [];
  for (const [token, id] of Object.entries(vocab)) bytes[id] = [...token].map(byteOf);
  for (const { id, content } of added_tokens) bytes[id] = [...new TextEncoder().encode(content)];
  return bytes;
})();

const idOfBytes = new Map(TOKEN_BYTES.map((bytes, id) => [bytes.join(), id]));

/** Tokens of a text in which borders may lie anywhere, also inside a character: any way to write it is a valid answer. */
export function randomTokens(text: string, random: () => number): number[] {
  const bytes = [...new TextEncoder().encode(text)], ids: number[] = [];
  for (let start = 0; start < bytes.length;) {
    let end = Math.min(bytes.length, start + 1 + Math.floor(random() * 6));
    while (!idOfBytes.has(bytes.slice(start, end).join())) end--; // every single byte is a token
    ids.push(idOfBytes.get(bytes.slice(start, end).join())!);
    start = end;
  }
  return ids;
}

/** The text of the first `count` tokens as far as it is complete; all of it, with U+FFFD, if `whole`. */
export function textOf(ids: readonly number[], count = ids.length, whole = true): string {
  const bytes = Uint8Array.from(ids.slice(0, count).flatMap((id) => TOKEN_BYTES[id] ?? []));
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes, { stream: !whole });
}
