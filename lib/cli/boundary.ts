/** `deno task boundary`: what a call of TensorFlow costs through our binding and through tfjs-node's native one. */

import { createRequire } from "node:module";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { cases, microseconds } from "../bench/peers/boundary/cases.mjs";
import { nativeBinding } from "../bench/peers/boundary/native.ts";
import { Peer } from "../bench/peers/protocol.ts";
import { TensorflowBinding } from "../tensorflow/capi/binding.ts";
import { ensureLibtensorflow } from "../tensorflow/install/install.ts";
import { Library } from "../tensorflow/capi/library.ts";
import { run, wholeNumber } from "./command.ts";
import { median } from "../util/median.ts";
import { table } from "../util/table.ts";

await run({
  name: "boundary",
  summary: "Times small operations through this binding and through tfjs-node's native one, in turns.",
  flags: {
    repeats: { type: "string", value: "N", help: "rounds that count, after two that do not (default 15)" },
    turns: { type: "string", value: "N", help: "calls in a round (default 3000)" },
  },
}, async (flags) => {
  const repeats = wholeNumber(flags.repeats, "repeats", 15), turns = wholeNumber(flags.turns, "turns", 3000);
  const paths = await ensureLibtensorflow(), library = new Library(paths);
  const addon = await nativeBinding(paths, console.error);
  const threads = navigator.hardwareConcurrency;
  const ours = new TensorflowBinding(library, { intraOp: threads, interOp: threads });
  const native = createRequire(import.meta.url)(addon);
  const worker = fileURLToPath(new URL("../bench/peers/boundary/node.mjs", import.meta.url));
  await using node = await Peer.start(["node", worker, addon]);

  const rows = [[
    "microseconds",
    "ours, Deno",
    "native, Deno",
    "native, Node.js",
    "ours / native, Deno",
    "ours / native, Node.js",
  ]];
  for (const [name, prepare] of Object.entries(cases)) {
    const [mine, theirs] = [ours, native].map((binding) => prepare(binding));
    const ways = [
      () => microseconds(mine, turns),
      () => microseconds(theirs, turns),
      () => node.ask<number>({ name, turns }),
    ];
    const times: number[][] = ways.map(() => []);
    for (let round = 0; round < repeats + 2; round++) {
      for (let i = 0; i < ways.length; i++) {
        const way = (round + i) % ways.length; // each is first in its turn
        const time = await ways[way]();
        if (round >= 2) times[way].push(time);
      }
    }
    const [our, inDeno, inNode] = times.map(median);
    rows.push([name, ...[our, inDeno, inNode, our / inDeno, our / inNode].map((value) => value.toFixed(2))]);
  }
  console.log(
    `${
      cpus()[0]?.model.trim()
    }, ${threads} threads; libtensorflow ${library.version}, Deno ${Deno.version.deno}, Node.js ${
      String(node.introduction)
    }`,
  );
  console.log(`medians of ${repeats} rounds of ${turns} calls, in turns\n`);
  console.log(table(rows));
});
