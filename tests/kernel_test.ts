import assert from "node:assert/strict";
import { type CellOutput, KernelSession } from "./_support/kernel_session.ts";

const ignore = Deno.build.os === "windows"; // there the kernel gets messages, not signals

const setUp = `
import { AutoModelForCausalLM, AutoTokenizer, generateBatch, generateTokenKvCaching, interruptSignal, useBackend } from "../lib/mod.ts";
import * as tf from "@tensorflow/tfjs";
const backend = await useBackend(BACKEND);
const model = await AutoModelForCausalLM.fromPretrained("../models/small", { backend });
const tokenizer = await AutoTokenizer.fromPretrained("../models/small");
const inputs = tokenizer(Array(ROWS).fill("Call me"), { padding: true });
const generate = (maxTokens) => generateBatch(model, inputs, { maxTokens, ignoreEos: true });
await generate(2);
const tensors = () => tf.memory().numTensors;
const before = tensors();
"ready"`;

for (const [backend, rows] of [["tensorflow", 32], ["cpu", 1]] as const) {
  Deno.test({
    name: `the stop button stops generation on ${backend}, and the kernel is as good as before`,
    ignore,
    async fn() {
      await using kernel = await KernelSession.start();
      const code = setUp.replace("BACKEND", JSON.stringify(backend)).replace("ROWS", String(rows));
      assert.equal(shown(await kernel.run(code)), '"ready"');

      await kernel.do({ start: "console.log('begun'); await generate(250); 'all of it'" });
      await kernel.do({ text: "begun" });
      await kernel.do({ interrupt: true });
      assert.deepEqual(named(await kernel.do({ end: true })), ["Interrupted"]);

      assert.equal(shown(await kernel.run("tensors() - before")), "0"); // the cache is freed
      assert.equal(shown(await kernel.run("(await generate(3))[0].tokens.length")), "3");

      // Again, and in a loop written by hand.
      await kernel.do({
        start: `let { cache, nextTokenIds } = await generateTokenKvCaching(model, inputs);
      console.log("by hand");
      for (let i = 0; i < 250; i++) {
        ({ nextTokenIds } = await generateTokenKvCaching(model, { inputIds: nextTokenIds.map((id) => [id]), cache }));
      }`,
      });
      await kernel.do({ text: "by hand" });
      await kernel.do({ interrupt: true });
      assert.deepEqual(named(await kernel.do({ end: true })), ["Interrupted"]);
      assert.equal(shown(await kernel.run("cache[Symbol.dispose](); tensors() - before")), "0");
    },
  });
}

Deno.test({
  name: "interrupts never end the kernel, a loop may listen for them, and a restart starts from nothing",
  ignore,
  async fn() {
    await using kernel = await KernelSession.start();
    const wait = "new Promise((resolve) => setTimeout(resolve, 20))";
    // Before anything is imported, nobody hears of an interrupt.
    await kernel.do({ start: `var kept = 42; console.log("on"); for (let i = 0; i < 20; i++) await ${wait}; "done"` });
    await kernel.do({ text: "on" });
    await kernel.do({ interrupt: true });
    assert.equal(shown(await kernel.do({ end: true })), '"done"');

    await kernel.run('import { interruptSignal } from "../lib/mod.ts";');
    const loop =
      `const stop = interruptSignal(); console.log("on"); for (;;) { stop.throwIfAborted(); await ${wait}; }`;
    for (let round = 0; round < 2; round++) {
      await kernel.do({ start: loop });
      await kernel.do({ text: "on" });
      await kernel.do({ interrupt: true });
      assert.deepEqual(named(await kernel.do({ end: true })), ["Interrupted"]);
    }
    assert.equal(shown(await kernel.run("kept")), "42");

    await kernel.do({ restart: true });
    assert.equal(shown(await kernel.run("typeof kept")), '"undefined"');
  },
});

/** The last result that was shown. */
function shown(outputs: CellOutput[]): string | undefined {
  const last = outputs.at(-1);
  return typeof last === "object" && "plain" in last ? last.plain : JSON.stringify(outputs);
}

/** The names of what was thrown. */
function named(outputs: CellOutput[]): string[] {
  return outputs.flatMap((output) =>
    typeof output === "object" && "name" in output ? [output.name] : [JSON.stringify(output)]
  );
}
