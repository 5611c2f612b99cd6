/** Who is next: how the requests that wait are ordered. */

/** What a policy may look at. */
export interface Waiting {
  /** Counts requests in the order in which they came. */
  readonly arrival: number;
  /** Tokens of its prompt. */
  readonly promptLength: number;
  /** As it was submitted; the more, the earlier. */
  readonly priority: number;
}

/** Negative where `a` goes before `b`, as in `Array.sort`. Of equals, the one that came first does. */
export type Policy = (a: Waiting, b: Waiting) => number;

/** In the order in which they came: everybody's turn comes. */
export const firstCome: Policy = (): number => 0;

/** Short prompts first: the mean wait is shorter, and a long prompt may wait for as long as short ones keep coming. */
export const shortestPrompt: Policy = (a, b): number => a.promptLength - b.promptLength;

/** The highest priority first; low ones may wait for as long as higher ones keep coming. */
export const byPriority: Policy = (a, b): number => b.priority - a.priority;
