import assert from "node:assert/strict";
import { Printer } from "../lib/cli/printer.ts";
import { print } from "../lib/util/print.ts";
import { seededRandom } from "../lib/util/random.ts";

Deno.test("whatever the rows' lengths, they are printed whole and in order, the first unfinished one live", () => {
  const random = seededRandom(1), upTo = (n: number) => Math.floor(random() * (n + 1));
  for (let round = 0; round < 200; round++) {
    const rows = Array.from({ length: 1 + upTo(4) }, (_, i) => ({
      prompt: `prompt ${i}:`,
      pieces: Array.from({ length: upTo(20) }, (_, k) => ["", ` ${i}.${k}`, "🚌", "\n"][upTo(3)]), // a step's may be empty
    }));
    let printed = "";
    const printer = new Printer(rows.map(({ prompt }) => prompt), (text) => printed += text);
    const steps = Math.max(...rows.map(({ pieces }) => pieces.length));
    for (let step = 0; step < steps; step++) {
      printer.add({
        tokens: rows.map(({ pieces }) => step < pieces.length ? 0 : null),
        texts: rows.map(({ pieces }) => pieces[step] ?? ""),
      });
      const live = rows.findIndex(({ pieces }) => pieces.length > step), { prompt, pieces } = rows[live];
      const before = rows.slice(0, live).map(whole).join("");
      assert.equal(printed, before + prompt + pieces.slice(0, step + 1).join(""));
    }
    printer.finish();
    assert.equal(printed, rows.map(whole).join(""));
  }
});

const whole = ({ prompt, pieces }: { prompt: string; pieces: string[] }) => `${prompt}${pieces.join("")}\n`;

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
