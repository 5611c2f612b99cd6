/**
 * What it costs that the event loop gets a turn after each step, so that timers, signals and requests are heard on every
 * backend: `deno run -A lib/bench/turns.ts`.
 */

import { useBackend } from "../backend/select.ts";
import { BACKENDS } from "../backend/types.ts";
import { loadGPT2 } from "../gpt2/load.ts";
import { median } from "../util/median.ts";
import { nextTurn } from "../util/turn.ts";
import { timeDecodeSteps } from "./measure.ts";

const turns: number[] = [];
for (let i = 0; i < 1000; i++) {
  const start = performance.now();
  await nextTurn();
  turns.push(performance.now() - start);
}
const turn = median(turns);
console.log(`a turn of the event loop: ${(1000 * turn).toFixed(0)} µs`);
for (const name of BACKENDS) {
  try {
    using model = await loadGPT2("models/small", { backend: await useBackend(name) });
    const step = 1000 * median(await timeDecodeSteps(model, 1, { steps: 20 }));
    console.log(
      `${name}: ${(100 * turn / step).toFixed(2)}% of a decode step of models/small at batch 1, ${step.toFixed(2)} ms`,
    );
  } catch (error) {
    console.log(`${name}: ${(error as Error).message}`);
  }
}
