import assert from "node:assert/strict";
import { Printer } from "../lib/cli/printer.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import { print } from "../lib/util/print.ts";
import { seededRandom } from "../lib/util/random.ts";
import { randomTokens } from "./_support/byte_tokens.ts";

const tokenizer = await AutoTokenizer.fromPretrained("models/small");

Deno.test("whatever the rows' lengths, they are printed whole and in order, the first unfinished one live", () => {
  const random = seededRandom(1);
  for (let round = 0; round < 200; round++) {
    const rows = Array.from({ length: 1 + Math.floor(random() * 5) }, (_, i) => {
      const ids = randomTokens("wie schön 🚌 日本語".repeat(2), random);
      return { prompt: `prompt ${i}:`, tokens: ids.slice(0, Math.floor(random() * ids.length)) };
    });
    let printed = "";
    const printer = new Printer(rows.map(({ prompt }) => prompt), tokenizer, (text) => {
      assert.ok(text.isWellFormed());
      printed += text;
    });
    const steps = Math.max(...rows.map(({ tokens }) => tokens.length));
    for (let step = 0; step < steps; step++) {
      printer.add(rows.map(({ tokens }) => tokens[step] ?? null));
      const live = rows.findIndex(({ tokens }) => tokens.length > step);
      const shown = rows.slice(0, live).map(whole).join("") + rows[live].prompt;
      assert.ok(printed.startsWith(shown), "all that ended before the live row, and its prompt");
      const stream = tokenizer.stream();
      const text = rows[live].tokens.slice(0, step + 1).map((id) => stream.push(id)).join("");
      assert.equal(printed.slice(shown.length), text, "what is complete of the live row");
    }
    printer.finish();
    assert.equal(printed, rows.map(whole).join(""));
  }
});

const whole = ({ prompt, tokens }: { prompt: string; tokens: number[] }) => `${prompt}${tokenizer.decode(tokens)}\n`;

Deno.test("print() writes all of a text to a pipe that takes a few bytes at a time", () => {
  const taken: number[] = [];
  print("schön 🚌", {
    writeSync(bytes) {
      taken.push(...bytes.subarray(0, 3));
      return Math.min(3, bytes.length);
    },
  });
  assert.equal(new TextDecoder().decode(Uint8Array.from(taken)), "schön 🚌");
});
