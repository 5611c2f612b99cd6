/** The same prompt in batches of several sizes: measures peers in turns, and says how one stands to the others. */

import { median } from "../../util/median.ts";
import type { Dtype } from "../../backend/ops.ts";
import type { Generation } from "./protocol.ts";
import { type Contestant, inTurns, type TurnOptions } from "./rounds.ts";

/** What one contestant did with one batch size: medians of the counted runs. Rates are tokens per second. */
export interface Point {
  /** Rows. */
  batchSize: number;
  /** From the prompts to the last token. */
  totalSeconds: number;
  /** From the prompts to the first new token. */
  prefillSeconds: number;
  /** From there to the last. */
  decodeSeconds: number;
  /** New tokens of all rows per second, end to end. */
  throughput: number;
  /** The same without the prefill and its token; null when there is no other. */
  decodeThroughput: number | null;
  /** Total seconds of each counted run. */
  repeats: number[];
}

/** One contestant's results. */
export interface Standing {
  /** Its software. */
  name: string;
  /** Its precision. */
  dtype: Dtype;
  /** By the batch sizes asked for. */
  points: Point[];
  /** The first row's new tokens. */
  tokens: number[];
  /** Every row of every batch had these tokens. */
  steady: boolean;
  /** The prompt's logits against those of the reference: the deviation of their difference / the deviation of theirs. */
  logitsError: number;
  /** The tokens are the reference's. */
  sameTokens: boolean;
}

/** What to measure. */
export interface CompareOptions extends TurnOptions {
  /** The prompt of every row. */
  ids: readonly number[];
  /** Rows. */
  batchSizes: readonly number[];
  /** New tokens of every row. */
  maxTokens: number;
}

/**
 * Float32 logits of one model differ by less than this, as {@link Standing.logitsError} counts. Most are a thousand times
 * nearer; llama.cpp keeps its cache and looks up its GELU in half precision, which makes 0.2%.
 */
export const SAME_MODEL = 0.005;

/** Omnibus once more, in turns of its own: how far it is from itself says how much a ratio to another means. */
export const CONTROL = "omnibus again";

/** Measures every batch size with every contestant, in turns. The reference is the first contestant in float32. */
export async function compare(contestants: readonly Contestant[], options: CompareOptions): Promise<Standing[]> {
  const { ids, batchSizes, maxTokens } = options;
  const logits: number[][] = [];
  for (const { generator } of contestants) logits.push(await generator.logits(ids));
  const tasks = batchSizes.map((batchSize) => ({ batchSize, name: `batch ${batchSize}` }));
  const runs = await inTurns(contestants, tasks, options, async ({ generator }, { batchSize }) => {
    const run = await generator.generate({ ids, batchSize, maxTokens });
    checkShape(run, batchSize, maxTokens);
    return run;
  });
  const reference = Math.max(0, contestants.findIndex(({ dtype }) => dtype === "float32"));
  const referenceTokens = runs[reference][0][0].tokens[0];
  return contestants.map(({ name, dtype }, i) => {
    const [tokens] = runs[i][0][0].tokens;
    return {
      name,
      dtype,
      points: batchSizes.map((batchSize, size) => toPoint(batchSize, maxTokens, runs[i][size].slice(1))),
      tokens,
      steady: runs[i].flat().every((run) => run.tokens.every((row) => `${row}` === `${tokens}`)),
      logitsError: relativeError(logits[i], logits[reference]),
      sameTokens: `${tokens}` === `${referenceTokens}`,
    };
  });
}

/** Whose end-to-end or decode-only rate against whose. */
export interface Ratio {
  /** The precision of both. */
  dtype: Dtype;
  /** The other one, or `best`: at each batch size the fastest of the others. */
  against: string;
  /** At each batch size. */
  ratios: number[];
  /** Of them all. */
  geometricMean: number;
  /** The least of them. */
  least: number;
}

/** How `name` stands to each of the others in its precision, and to the best of them, by one of the rates. */
export function ratiosOf(
  standings: readonly Standing[],
  name: string,
  rate: (point: Point) => number | null,
): Ratio[] {
  return standings.filter((one) => one.name === name).flatMap(({ dtype, points }) => {
    const others = standings.filter((one) => one.dtype === dtype && one.name !== name);
    if (!others.length) return [];
    const rates = others.map((other) => other.points.map((point) => rate(point) ?? NaN));
    const peers = rates.filter((_, i) => others[i].name !== CONTROL);
    const best = points.map((_, i) => Math.max(...peers.map((values) => values[i])));
    return [
      ...others.map((other, i) => ({ against: other.name, rates: rates[i] })),
      ...peers.length ? [{ against: "best", rates: best }] : [],
    ].map(({ against, rates }) => {
      const ratios = points.map((point, i) => (rate(point) ?? NaN) / rates[i]);
      return { dtype, against, ratios, geometricMean: geometricMean(ratios), least: Math.min(...ratios) };
    });
  });
}

/** How one stands to another end to end, in each round that counted: the geometric mean over the batch sizes. */
export function ratiosByRound(one: Standing, other: Standing): number[] {
  return one.points[0].repeats.map((_, round) =>
    geometricMean(one.points.map(({ repeats }, size) => other.points[size].repeats[round] / repeats[round]))
  );
}

/** The n-th root of the product: the mean of ratios. NaN if there is none. */
export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

/** What speaks against a fair comparison, in sentences: other answers than one model would give. */
export function doubts(standings: readonly Standing[]): string[] {
  return standings.flatMap(({ name, dtype, logitsError, sameTokens, steady }) => {
    const who = `${name} ${dtype}`, found = [];
    if (!steady) found.push(`${who} gives some rows or runs other tokens than the rest, for one prompt.`);
    if (dtype !== "float32") return found;
    if (!(logitsError < SAME_MODEL)) {
      found.push(`${who} has other logits (off by ${percent(logitsError)}): another model?`);
    } else if (!sameTokens) found.push(`${who} has the same logits, but goes on with other tokens.`);
    return found;
  });
}

/** `0.0123` -> `1.2%` */
export function percent(share: number): string {
  return `${Number((share * 100).toPrecision(2))}%`;
}

/** The deviation of the difference / the deviation of the reference: what is added to all logits changes nothing. */
export function relativeError(values: readonly number[], reference: readonly number[]): number {
  const deviation = (numbers: readonly number[]) => {
    const mean = numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
    return Math.sqrt(numbers.reduce((sum, value) => sum + (value - mean) ** 2, 0) / numbers.length);
  };
  return deviation(reference.map((value, i) => value - values[i])) / deviation(reference);
}

function toPoint(batchSize: number, maxTokens: number, runs: Generation[]): Point {
  const repeats = runs.map((run) => run.prefillSeconds + run.decodeSeconds);
  const decodeSeconds = median(runs.map((run) => run.decodeSeconds)), totalSeconds = median(repeats);
  return {
    batchSize,
    totalSeconds,
    prefillSeconds: median(runs.map((run) => run.prefillSeconds)),
    decodeSeconds,
    throughput: batchSize * maxTokens / totalSeconds,
    decodeThroughput: maxTokens > 1 ? batchSize * (maxTokens - 1) / decodeSeconds : null,
    repeats,
  };
}

function checkShape({ tokens }: Generation, batchSize: number, maxTokens: number): void {
  if (tokens.length === batchSize && tokens.every((row) => row.length === maxTokens)) return;
  const rows = `${tokens.length} rows of ${tokens[0]?.length} tokens`;
  throw new Error(`it made ${rows} where ${batchSize} rows of ${maxTokens} were asked for.`);
}
