/** What every bench gives and is given. */

import type { Chart } from "../../chart.ts";
import type { Contestant, TurnOptions } from "./rounds.ts";

/** What a bench found. */
export interface Findings {
  /** For people. */
  text: string;
  /** For programs. */
  result: Record<string, unknown>;
  chart: Chart;
}

/** What a bench is given. */
export interface BenchOptions extends TurnOptions {
  /** The model and the machine, for titles. */
  where: { model: string; machine: string };
  /** Rows, of those batches that have sizes. */
  batchSizes: readonly number[];
  /** New tokens of every row, of those that all have as many. */
  maxTokens: number;
  /** How many requests, of those that come by themselves. */
  requests: number;
  vocabSize: number;
}

/** A workload: who can do it, what is its own, and the bench. */
export interface Workload {
  /** Names of candidates. */
  peers: readonly string[];
  /** Rounds that count, unless one asks for others. */
  repeats: number;
  /** Requests, unless one asks for others. */
  requests: number;
  bench(contestants: readonly Contestant[], options: BenchOptions): Promise<Findings>;
}
