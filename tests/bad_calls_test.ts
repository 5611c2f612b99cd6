import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

/** 10,000 calls each; with `--full`, a hundred times as many. */
const seeds = Array.from({ length: Deno.env.get("OMNIBUS_FULL") ? 100 : 1 }, (_, i) => i + 1);

Deno.test("10,000 random bad calls end in errors, never in a crash, and leave nothing behind", async () => {
  for (const seed of seeds) {
    const args = ["run", "-A", fileURLToPath(new URL("_support/bad_calls.ts", import.meta.url)), `${seed}`, "10000"];
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    const log = new TextDecoder().decode(stderr).trimEnd().split("\n"),
      calls = log.filter((line) => /^\d+ /.test(line));
    assert.ok(
      success,
      `seed ${seed} crashed in call ${calls.at(-1)}\n${log.slice(log.lastIndexOf(calls.at(-1)!)).join("\n")}`,
    );
    const { outcomes, stillWorks, left } = JSON.parse(new TextDecoder().decode(stdout));
    const { done, TensorflowError, TypeError, RangeError, ReferenceError, ...unexpected } = outcomes;
    assert.deepEqual(unexpected, {});
    assert.equal(done + TensorflowError + TypeError + RangeError + ReferenceError, 10_000);
    assert.ok(TensorflowError > 1000 && TypeError > 1000 && RangeError > 1000 && ReferenceError > 500 && done < 4000);
    assert.deepEqual([stillWorks, left], [[1, 4], 0]);
  }
});
