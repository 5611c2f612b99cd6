import assert from "node:assert/strict";
import { join } from "node:path";
import { AutoTokenizer, type Tokenizer } from "../lib/tokenizer/tokenizer.ts";
import { seededRandom } from "../lib/util/random.ts";

interface Golden {
  prompt: string;
  promptTokens: number[];
  tokens: number[];
  text: string;
}
const golden: Golden[] = JSON.parse(await Deno.readTextFile("tests/fixtures/small_golden.json"));
const tokenizer = await AutoTokenizer.fromPretrained("models/small");
const END = 50256;

/** Any character of Unicode, but more often those of ASCII and the spaces that are easy to get wrong. */
function randomText(random: () => number): string {
  const pick = (items: readonly string[]) => items[Math.floor(random() * items.length)];
  return Array.from({ length: Math.floor(random() * 40) }, () => {
    const kind = random();
    if (kind < 0.4) return String.fromCharCode(32 + Math.floor(random() * 95));
    if (kind < 0.6) {
      return pick([" ", "  ", "\n", "\t", "\r\n", "\u0085", "\ufeff", "\u00a0", "\u3000", "'s", "🚌", "👨‍👩‍👧"]);
    }
    const codePoint = Math.floor(random() * (kind < 0.8 ? 0x3000 : 0x110000));
    return codePoint >= 0xd800 && codePoint < 0xe000 ? "\ufffd" : String.fromCodePoint(codePoint);
  }).join("");
}

/** A copy of the model's tokenizer in a folder of its own, without tokenizer_config.json. */
async function withTokenizer(json: unknown, use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(join(folder, "tokenizer.json"), typeof json === "string" ? json : JSON.stringify(json));
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("the tokenizer gives the reference's tokens for every prompt, and reads its answers", () => {
  assert.equal(golden.length, 12);
  const { inputIds } = tokenizer(golden.map(({ prompt }) => prompt));
  assert.deepEqual(inputIds, golden.map(({ promptTokens }) => promptTokens));
  for (const { prompt, promptTokens, tokens, text } of golden) {
    assert.equal(tokenizer.decode(tokens), text);
    assert.equal(tokenizer.decode(promptTokens), prompt);
  }
});

Deno.test("encode() splits at the white space that GPT-2 splits at", () => {
  const reference: [string, number[]][] = [
    ["don't  stop\n\n<|endoftext|> x", [9099, 470, 220, 2245, 628, END, 2124]],
    ["١٢٣ ½ Ⅷ", [149, 94, 149, 95, 149, 96, 25208, 2343, 227, 100]],
    [" \ufeffx", [27332, 119, 123, 87]], // U+FEFF is no space
    ["a \u0085b", [64, 220, 126, 227, 65]], // U+0085 is one
  ];
  for (const [text, ids] of reference) assert.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
});

Deno.test("decode() gives back any text that was encoded", () => {
  const random = seededRandom(1);
  for (let i = 0; i < 2000; i++) {
    const text = randomText(random);
    assert.equal(tokenizer.decode(tokenizer.encode(text)), text);
  }
});

Deno.test("bytes that are no text read as U+FFFD, also when a special token cuts a character", () => {
  const [first, ...rest] = tokenizer.encode("🚌");
  assert.equal(tokenizer.decode([first, END, ...rest]), "\ufffd<|endoftext|>\ufffd\ufffd");
  assert.equal(tokenizer.decode([first, END, ...rest], { skipSpecialTokens: true }), "🚌");
  assert.equal(tokenizer.decode([]), "");
  assert.equal(tokenizer.decode([60_000]), "");
  assert.throws(() => tokenizer.decode([-1]), /Cannot decode the token id -1/);
  assert.throws(() => tokenizer.decode([1.5]), /Cannot decode the token id 1.5/);
});

Deno.test("tokenToText() shows bytes of unfinished characters as bytes", () => {
  assert.equal(tokenizer.tokenToText(262), " the");
  assert.equal(tokenizer.tokenToText(198), "\n");
  assert.equal(tokenizer.tokenToText(END), "<|endoftext|>");
  assert.deepEqual(tokenizer.encode("🚌").map(tokenizer.tokenToText), ["\\xF0\\x9F", "\\x9A", "\\x8C"]);
});

Deno.test("prompts become rows: ragged, padded left or right, never empty", () => {
  const prompts = ["What comes up must", "", "A"];
  assert.deepEqual(tokenizer(prompts), {
    inputIds: [[2061, 2058, 510, 1276], [END], [32]],
    attentionMask: [[1, 1, 1, 1], [1], [1]],
  });
  assert.deepEqual(tokenizer(prompts, { padding: true }), {
    inputIds: [[2061, 2058, 510, 1276], [END, END, END, END], [END, END, END, 32]],
    attentionMask: [[1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]],
  });
  assert.deepEqual(tokenizer(prompts, { padding: true, paddingSide: "right" }).attentionMask, [
    [1, 1, 1, 1],
    [1, 0, 0, 0],
    [1, 0, 0, 0],
  ]);
  assert.deepEqual(tokenizer("A"), { inputIds: [[32]], attentionMask: [[1]] });
  assert.deepEqual(tokenizer.encode(""), []);
});

Deno.test("the tokenizer refuses what is not prompts", () => {
  const call = tokenizer as unknown as (prompts: unknown, options?: unknown) => void;
  assert.throws(() => call([]), /empty list: pass at least one prompt/);
  assert.throws(() => call(["a", 3]), /prompt 1: it is of type number\. Pass strings/);
  assert.throws(() => call(undefined), /Cannot tokenize undefined: pass a string or an array of strings/);
  assert.throws(() => call(["a"], { padding: true, paddingSide: "top" }), /side "top"/);
});

Deno.test("a tokenizer.json as older models have it, alone in its folder, gives the same tokens", async () => {
  const json = JSON.parse(await Deno.readTextFile("models/small/tokenizer.json"));
  json.model.merges = json.model.merges.map((pair: string[]) => pair.join(" "));
  json.pre_tokenizer = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
  json.post_processor = { type: "ByteLevel", add_prefix_space: true, trim_offsets: false };
  json.added_tokens[0].normalized = true;
  await withTokenizer(json, async (folder) => {
    const older = await AutoTokenizer.fromPretrained(folder);
    assert.deepEqual(describe(older), describe(tokenizer));
    const random = seededRandom(3);
    for (
      const text of [
        ...golden.map(({ prompt }) => prompt),
        ...Array.from({ length: 200 }, () => randomText(random)),
      ]
    ) {
      assert.deepEqual(older.encode(text), tokenizer.encode(text));
    }
  });
});

const describe = ({ eosTokenId, padTokenId, vocabSize }: Tokenizer) => ({ eosTokenId, padTokenId, vocabSize });

Deno.test("tokenizer_config.json names the end-of-text and padding tokens", async () => {
  const json = JSON.parse(await Deno.readTextFile("models/small/tokenizer.json"));
  json.added_tokens.push({ id: 50257, content: "<pad>", special: true });
  await withTokenizer(json, async (folder) => {
    const config = { eos_token: { content: "A" }, pad_token: "<pad>" };
    await Deno.writeTextFile(join(folder, "tokenizer_config.json"), JSON.stringify(config));
    const named = await AutoTokenizer.fromPretrained(folder);
    assert.deepEqual(describe(named), { eosTokenId: 32, padTokenId: 50257, vocabSize: 50258 });
  });
});

Deno.test("a folder without a usable tokenizer is refused with its name", async () => {
  await assert.rejects(
    AutoTokenizer.fromPretrained("tests/none"),
    /Cannot find a tokenizer in tests\/none: .* tokenizer\.json/,
  );
  const cases: [unknown, RegExp][] = [
    ["{", /tokenizer\.json: it is not JSON/],
    ["null", /its model is undefined/],
    [
      { model: { type: "Unigram" }, decoder: { type: "Metaspace" } },
      /Unigram with decoder Metaspace.*BPE with ByteLevel/,
    ],
    [{ model: { type: "BPE" }, decoder: { type: "ByteLevel" } }, /Cannot use .*tokenizer\.json: /],
  ];
  for (const [json, message] of cases) {
    await withTokenizer(json, (folder) => assert.rejects(AutoTokenizer.fromPretrained(folder), message));
  }
});
