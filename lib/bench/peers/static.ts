/** The workload `static`: the same prompt in batches of several sizes, prefill included. */

import { FOX } from "../fox.ts";
import { CANDIDATES } from "./catalog.ts";
import { type MachineState, stateLines, watchMachine } from "../machine_state.ts";
import { compare, CONTROL, doubts } from "./compare.ts";
import type { Workload } from "./findings.ts";
import { allRatios, answers, benchChart, tables } from "./report.ts";

/** All peers can do it. */
export const staticBatches: Workload = {
  peers: CANDIDATES.map(({ name }) => name),
  repeats: 5,
  requests: 0,
  async bench(contestants, options) {
    const { where, maxTokens, repeats } = options;
    const control = contestants.filter(({ name }) => name === "omnibus").map((one) => ({ ...one, name: CONTROL }));
    const look = watchMachine(), machine: MachineState[] = [];
    const onRound = async () => void machine.push(await look());
    const standings = await compare([...contestants, ...control], { ids: FOX, ...options, onRound });
    const subtitle = `${where.model}, ${FOX.length}-token prompts, ${maxTokens} new tokens; ${where.machine}`;
    const text = [
      `${subtitle}; medians of ${repeats} runs in turns\n` +
      "Below each column: omnibus / this peer, the geometric mean over the batch sizes and the least, and " +
      `that mean in the rounds where it was lowest and highest. "${CONTROL}" is the same process, in turns of its own.`,
      tables(standings),
      answers(standings),
      stateLines(machine),
      ...doubts(standings),
    ].join("\n\n");
    const result = {
      ...{ promptTokens: FOX.length, maxTokens, repeats, contestants: standings, machine },
      ratios: allRatios(standings),
    };
    return { text, result, chart: benchChart(standings, { maxTokens, subtitle }) };
  },
};
