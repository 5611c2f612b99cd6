/** Random requests as lines of a batch file, greedy or with a seed, and what came of them. */

import type { Result } from "../../lib/batch/result.ts";
import { seededRandom } from "../../lib/util/random.ts";

const WORDS = "call me time years ago never mind how long precisely having little or no money in my purse".split(" ");

/** So many lines: half of them greedy, the others sampled with a seed. */
export function batchLines(count: number, seed = 1): string[] {
  const random = seededRandom(seed), upTo = (n: number) => 1 + Math.floor(random() * n);
  return Array.from({ length: count }, (_, i) => {
    const prompt = Array.from({ length: upTo(8) }, () => WORDS[upTo(WORDS.length) - 1]).join(" ");
    const sampling = random() < 0.5 ? { temperature: 0 } : { temperature: 0.8, top_k: 40, seed: upTo(1e6) };
    const body = { model: "small", prompt, max_tokens: upTo(8), ...sampling };
    return JSON.stringify({ custom_id: `request-${i}`, method: "POST", url: "/v1/completions", body });
  });
}

/** The results in a text of lines. */
export function resultsIn(text: string): Result[] {
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

/** What each custom_id was answered. Throws if one was answered twice. */
export function choicesById(results: readonly Result[]): Map<string, string> {
  const choices = new Map<string, string>();
  for (const { custom_id, response, error } of results) {
    if (choices.has(custom_id!)) throw new Error(`${custom_id} was answered twice`);
    choices.set(custom_id!, JSON.stringify(response ? response.body.choices : error));
  }
  return choices;
}

/** How many were answered otherwise; a tie of two tokens may fall one way in one batch and the other way in another. */
export function differing(some: ReadonlyMap<string, string>, others: ReadonlyMap<string, string>): number {
  return [...some].filter(([id, choices]) => others.get(id) !== choices).length;
}
