/** Who takes part in a comparison, and in what order they have their turns. */

import type { Dtype } from "../../backend/ops.ts";
import type { Generator } from "./protocol.ts";
import { seededRandom } from "../../util/random.ts";

/** Someone who takes part. */
export interface Contestant {
  /** Its software. */
  name: string;
  /** Its precision. */
  dtype: Dtype;
  /** The running worker. */
  generator: Generator;
}

/** Someone who does not, and why. */
export interface Missing {
  /** Its software. */
  name: string;
  /** The precision that was asked for. */
  dtype: Dtype;
  /** What went wrong. */
  reason: string;
}

/** How often everybody has a turn. */
export interface TurnOptions {
  /** Rounds that count. One more, before them, does not. */
  repeats: number;
  /** Between two runs, so that threads of the last one that still wait for work have gone to sleep. Default 0.05. */
  pauseSeconds?: number;
  /** Called before each round, the first one included that does not count, and after the last. */
  onRound?: () => Promise<void>;
  /** Called before each run with how many of all are done, and which comes next. */
  onProgress?: (done: number, total: number, next: string) => void;
}

/**
 * In every round, every task and every contestant has one run, so that a slow minute of the machine falls on all of them. Their
 * order is drawn anew each time: who always came after the same one would pay for how that leaves the machine. Returns what `work`
 * did for each contestant, task and round. Throws an error that names the contestant that failed.
 */
export async function inTurns<C extends Contestant, T extends { name: string }, R>(
  contestants: readonly C[],
  tasks: readonly T[],
  { repeats, pauseSeconds = 0.05, onRound, onProgress }: TurnOptions,
  work: (contestant: C, task: T, round: number) => Promise<R>,
): Promise<R[][][]> {
  const runs = contestants.map(() => tasks.map((): R[] => []));
  const total = (1 + repeats) * tasks.length * contestants.length;
  const random = seededRandom(0);
  let done = 0;
  for (let round = 0; round <= repeats; round++) {
    await onRound?.();
    for (const [i, task] of tasks.entries()) {
      for (const who of drawnOrder(contestants.length, random)) {
        const contestant = contestants[who];
        const name = `${contestant.name} ${contestant.dtype}`;
        onProgress?.(done++, total, `${name}, ${task.name}`);
        await new Promise((resolve) => setTimeout(resolve, pauseSeconds * 1000));
        runs[who][i].push(
          await work(contestant, task, round).catch((error) => {
            throw new Error(`${name} failed at ${task.name} (${error.message}). Leave it out with --peers.`);
          }),
        );
      }
    }
  }
  await onRound?.();
  onProgress?.(total, total, "");
  return runs;
}

/** 0 to count − 1, each once. */
function drawnOrder(count: number, random: () => number): number[] {
  const draws = Array.from({ length: count }, random);
  return [...draws.keys()].sort((a, b) => draws[a] - draws[b]);
}
