/**
 * Choosing the next token of every row on the device, each row by its own settings, without sorting the vocabulary.
 *
 * A draw inverts the cumulative distribution at the row's random number. What order the tokens stand in is free, as long as
 * it depends on the row alone. A row without filters takes them by id: sums of blocks say in which block the draw lies, and
 * only that block is looked through. A row with filters takes them by falling probability, which is the order that filters
 * think in: the most likely {@link CANDIDATES} are found, with the exact weight of all others, and that nearly always decides.
 * Where it does not, the row is reported as unsettled, and engine/draw.ts decides it on the host; nothing is approximated.
 *
 * Letters: B batch, V vocabulary, E edits, n candidates.
 */

import * as tf from "@tensorflow/tfjs";
import { joinColumns } from "./join_columns.ts";

/** What a backend must bring; all else is tfjs. */
export interface SamplingOps {
  /** x [B, M] or [B, M, size], indices int [B, K] -> [B, K] or [B, K, size]: in each row, the entries at its own indices. */
  gatherInRows(x: tf.Tensor, indices: tf.Tensor2D): tf.Tensor;
  /** x [N], places int [E, 1], values [E] -> [N]: x with those values at those places. May change x, which nobody else sees. */
  replace(x: tf.Tensor1D, places: tf.Tensor2D, values: tf.Tensor1D): tf.Tensor1D;
}

/** What the sampler takes besides logits: see `samplerInputs` in engine/sampler_inputs.ts. */
export interface SamplerTensors {
  /** [B, 7]: see {@link SETTING}. */
  settings: tf.Tensor2D;
  /** [E, 5]: row, token, and what changes its logit. A row and a token occur together once; token −1 is nothing. */
  edits: tf.Tensor2D;
}

/** The columns of a row's settings. A filter without effect is one that nothing falls through. */
export const SETTING = {
  temperature: 0,
  uniform: 1,
  topK: 2,
  topP: 3,
  minPFirst: 4,
  minPLast: 5,
  filtered: 6,
  count: 7,
} as const;

/** What was chosen. */
export type SampledTokens = {
  /** int [B]. */
  ids: tf.Tensor1D;
  /** int [B]: 0 where the candidates could not decide, so that `ids` means nothing. */
  settled: tf.Tensor1D;
  /**
   * What decides unsettled rows: for each part of the logits [B, m + padding], the weights that bias, penalties and temperature
   * leave to the tokens, where that of the most likely one is 1.
   */
  weights: tf.Tensor2D[];
};

/** Log-probabilities of the model itself: temperature, penalties and filters have no part in them. */
export type Logprobs = {
  /** [B]: of the chosen tokens. */
  chosen: tf.Tensor1D;
  /** int [B, n]: the most likely tokens, the likeliest first, if asked for. */
  topIds?: tf.Tensor2D;
  /** [B, n]: theirs. */
  top?: tf.Tensor2D;
};

/** How many of the most likely tokens a filtered row is drawn from, before the host has to help. */
export const CANDIDATES = 64;

/** Columns that are summed up together, and columns that are looked at together within them. */
const BLOCK = 64, SUBBLOCK = 8;

/** What fills a part up to whole blocks: no token, and never the largest. */
const NOTHING = -1e30;

/** Just below 1: a target that is rounded up to the total must not lie behind the last token. */
const BELOW_ONE = 1 - 2 ** -23;

/** The next token of every row, of logits [B, V] in parts side by side. Works in captures; no shape or value is baked in. */
export function sample(ops: SamplingOps, logits: readonly tf.Tensor2D[], inputs: SamplerTensors): SampledTokens {
  // Under a name: its copies of the logits are changed, so TensorFlow must not take those of logprobs() for the same.
  return tf.tidy("sample", () => chosenOf(ops, logits, inputs));
}

function chosenOf(
  ops: SamplingOps,
  logits: readonly tf.Tensor2D[],
  { settings, edits }: SamplerTensors,
): SampledTokens {
  const columns = tf.split(settings, SETTING.count, 1) as tf.Tensor2D[];
  const edited = partsOf(logits).map((part) => ({ ...part, columns: edit(ops, part, edits) }));
  const parts = weigh(edited, columns[SETTING.temperature]).map((part) => ({ ...part, columns: part.weights }));
  const blocks = cumulate(joinColumns(parts.map(({ sums }) => sums)));
  const byId = drawById(ops, parts, blocks, columns);
  const byRank = drawByRank(ops, largest(ops, parts, CANDIDATES), blocks.total, columns);
  const filtered = tf.greater(columns[SETTING.filtered], 0);
  const ids = tf.where(filtered, byRank.ids, byId), last = int(vocabularyOf(parts) - 1);
  return {
    ids: flat(tf.minimum(ids, last)), // logits that are no numbers may end in padding
    settled: flat(tf.cast(tf.logicalOr(byRank.settled, tf.logicalNot(filtered)), "int32")),
    weights: parts.map(({ weights }) => weights),
  };
}

/** What was chosen, as tensors in a row: so a captured step gives it. */
export function toTensors({ ids, settled, weights }: SampledTokens): tf.Tensor[] {
  return [ids, settled, ...weights];
}

/** Undoes {@link toTensors}. */
export function fromTensors([ids, settled, ...weights]: readonly tf.Tensor[]): SampledTokens {
  return { ids: ids as tf.Tensor1D, settled: settled as tf.Tensor1D, weights: weights as tf.Tensor2D[] };
}

/** Log-probabilities of chosen tokens, int [B], and of the `top` most likely ones, of logits [B, V] in parts. */
export function logprobs(
  ops: SamplingOps,
  logits: readonly tf.Tensor2D[],
  ids: tf.Tensor1D,
  { top }: { top: number },
): Logprobs {
  return tf.tidy("logprobs", () => logprobsOf(ops, logits, ids, top));
}

function logprobsOf(ops: SamplingOps, logits: readonly tf.Tensor2D[], ids: tf.Tensor1D, top: number): Logprobs {
  const parts = weigh(partsOf(logits), tf.scalar(1)), [{ max }] = parts;
  const total = parts.map(({ sums }) => tf.sum(sums, 1, true)).reduce((a, b) => tf.add(a, b));
  const logTotal = tf.add(max, tf.log(total)); // [B, 1]
  const chosen = pick(
    parts,
    columnOf(parts, tf.reshape(ids, [-1, 1])),
    1,
    ({ columns }, at) => ops.gatherInRows(columns, at),
  );
  if (top === 0) return { chosen: flat(tf.sub(chosen, logTotal)) };
  const best = largest(ops, parts, top);
  return { chosen: flat(tf.sub(chosen, logTotal)), topIds: best.ids, top: tf.sub(best.values, logTotal) };
}

/** Some columns of the logits, and padding up to whole blocks: at least one column of it. */
interface Part {
  /** Its first token, and how many tokens it has. */
  first: number;
  width: number;
  /** Where it begins when the padding of all parts counts too, and its width with padding. */
  start: number;
  padded: number;
  /** [B, padded]. */
  columns: tf.Tensor2D;
}

/** What is known of a part. */
interface Weighed extends Part {
  /** [B, padded / BLOCK]: the largest logit of each block. */
  maxima: tf.Tensor2D;
  /** [B, 1]: the largest logit of all parts. */
  max: tf.Tensor;
  /** [B, padded]: the exponential of each logit's distance from that, divided by the temperature. */
  weights: tf.Tensor2D;
  /** [B, padded / BLOCK]: its sum in each block. */
  sums: tf.Tensor2D;
}

/** Entries of a row in falling order, [B, n]; among equal ones the lower id comes first. */
interface Candidates {
  values: tf.Tensor2D;
  ids: tf.Tensor2D;
  /** There are no more tokens than these. */
  complete: boolean;
}

function partsOf(logits: readonly tf.Tensor2D[]): Part[] {
  let first = 0, start = 0;
  return logits.map((columns) => {
    const width = columns.shape[1], padded = (Math.floor(width / BLOCK) + 1) * BLOCK;
    const part = { first, width, start, padded, columns: tf.pad(columns, [[0, 0], [0, padded - width]], NOTHING) };
    first += width;
    start += padded;
    return part;
  });
}

function vocabularyOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { width }) => sum + width, 0);
}

/** [B, padded] after the edits that concern the part. The others rewrite padding as it is. Takes its columns over. */
function edit(ops: SamplingOps, { first, width, padded, columns }: Part, edits: tf.Tensor2D): tf.Tensor2D {
  const [row, token, add, repetition, subtract] = tf.split(edits, 5, 1);
  const here = tf.logicalAnd(tf.greaterEqual(token, first), tf.less(token, first + width)); // [E, 1]
  // The column is token − first, if that is here, else the first of the padding.
  const fromEnd = tf.mul(tf.cast(here, "int32"), tf.sub(tf.cast(token, "int32"), int(first + width)));
  const places = tf.add(tf.mul(tf.cast(row, "int32"), int(padded)), tf.add(fromEnd, int(width))) as tf.Tensor2D;
  const all = flat(columns), old = tf.gatherND(all, places); // [E]
  const biased = tf.add(old, flat(add)), penalty = flat(repetition);
  const penalized = tf.where(tf.greater(biased, 0), tf.div(biased, penalty), tf.mul(biased, penalty));
  const changed = tf.where(flat(here), tf.sub(penalized, flat(subtract)), old) as tf.Tensor1D;
  return tf.reshape(ops.replace(all, places, changed), [-1, padded]);
}

function weigh(parts: readonly Part[], temperature: tf.Tensor): Weighed[] {
  const maxima = parts.map(({ columns, padded }) => tf.max(blocksOf(columns, padded, BLOCK), 2) as tf.Tensor2D);
  const max = maxima.map((maxima) => tf.max(maxima, 1, true)).reduce((a, b) => tf.maximum(a, b));
  return parts.map((part, i) => {
    const weights = tf.exp(tf.div(tf.sub(part.columns, max), temperature)) as tf.Tensor2D;
    return {
      ...part,
      maxima: maxima[i],
      max,
      weights,
      sums: tf.sum(blocksOf(weights, part.padded, BLOCK), 2) as tf.Tensor2D,
    };
  });
}

/** [B, M] -> [B, M / size, size]. */
function blocksOf(x: tf.Tensor, M: number, size: number): tf.Tensor3D {
  return tf.reshape(x, [-1, M / size, size]);
}

/**
 * The `count` largest entries of each row, whose order is that of the logits. They lie in as many blocks as they are, those with the largest maxima; in these,
 * again, in as many parts of blocks.
 */
function largest(ops: SamplingOps, parts: readonly Weighed[], count: number): Candidates {
  const width = vocabularyOf(parts), n = Math.min(count, width);
  const blocks = parts.reduce((sum, { padded }) => sum + padded, 0) / BLOCK;
  if (blocks <= n) {
    const { values, indices } = tf.topk(joinColumns(parts.map(({ columns }) => columns)), n);
    return { values, ids: idOf(parts, indices), complete: n === width };
  }
  const chosen = ascending(tf.topk(joinColumns(parts.map(({ maxima }) => maxima)), n, false).indices);
  const each = BLOCK / SUBBLOCK;
  const maxima = pick(parts, chosen, BLOCK, ({ columns, padded }, at) => {
    const found = ops.gatherInRows(blocksOf(columns, padded, BLOCK), at); // [B, n, BLOCK]
    return tf.max(tf.reshape(found, [-1, n * each, SUBBLOCK]), 2);
  }, each);
  const within = ascending(tf.topk(maxima, n, false).indices);
  const subblocks = outer(ops, chosen, within, each);
  const entries = pick(
    parts,
    subblocks,
    SUBBLOCK,
    ({ columns, padded }, at) =>
      tf.reshape(ops.gatherInRows(blocksOf(columns, padded, SUBBLOCK), at), [-1, n * SUBBLOCK]),
    SUBBLOCK,
  );
  const { values, indices } = tf.topk(entries, n);
  return { values, ids: idOf(parts, outer(ops, subblocks, indices, SUBBLOCK)), complete: n === width };
}

/** int [B, K] in rising order: so that among equal entries those with lower ids come first. */
function ascending(indices: tf.Tensor): tf.Tensor2D {
  const falling = tf.topk(tf.neg(tf.cast(indices, "float32")), indices.shape[1]).values;
  return tf.cast(tf.neg(falling), "int32") as tf.Tensor2D;
}

/** Groups [B, n] of `size` things, and places [B, K] among the n · size things of those groups -> the things' own numbers. */
function outer(ops: SamplingOps, groups: tf.Tensor2D, places: tf.Tensor2D, size: number): tf.Tensor2D {
  const group = tf.floorDiv(places, int(size)) as tf.Tensor2D;
  const moved = tf.sub(ops.gatherInRows(groups, group), group);
  return tf.add(places, tf.mul(moved, int(size)));
}

/** Numbers [B, M] from which a row's draw picks one. */
interface Cumulated {
  /** [B, M]. */
  sums: tf.Tensor2D;
  /** [B, 1]: the last. */
  total: tf.Tensor;
}

function cumulate(x: tf.Tensor2D): Cumulated {
  const sums = tf.cumsum(x, 1) as tf.Tensor2D;
  return { sums, total: tf.max(sums, 1, true) };
}

/** int [B, 1]: the first place at which the sum exceeds the target [B, 1], which must be below the total. */
function placeOf(sums: tf.Tensor, target: tf.Tensor): tf.Tensor2D {
  return tf.sum(tf.cast(tf.lessEqual(sums, target), "int32"), 1, true);
}

/** A share of the total that surely is less. */
function below(total: tf.Tensor, target: tf.Tensor): tf.Tensor {
  return tf.minimum(target, tf.mul(total, BELOW_ONE));
}

/** int [B, 1]: the token at which the cumulative distribution, by id, passes the random number. */
function drawById(
  ops: SamplingOps,
  parts: readonly Weighed[],
  { sums, total }: Cumulated,
  columns: readonly tf.Tensor2D[],
): tf.Tensor {
  const target = below(total, tf.mul(total, columns[SETTING.uniform]));
  const passed = tf.cast(tf.lessEqual(sums, target), "float32"), before = tf.max(tf.mul(sums, passed), 1, true);
  const block = placeOf(sums, target);
  const inside = cumulate(
    pick(
      parts,
      block,
      BLOCK,
      ({ weights, padded }, at) => tf.reshape(ops.gatherInRows(blocksOf(weights, padded, BLOCK), at), [-1, BLOCK]),
    ),
  );
  const offset = placeOf(inside.sums, below(inside.total, tf.sub(target, before)));
  return idOf(parts, tf.add(tf.mul(block, int(BLOCK)), offset));
}

/** int [B, 1], bool [B, 1]: the token at which the distribution of what the filters leave, by rank, passes it; and if it is sure. */
function drawByRank(
  ops: SamplingOps,
  { values: weights, ids, complete }: Candidates,
  totalOfAll: tf.Tensor,
  columns: readonly tf.Tensor2D[],
): { ids: tf.Tensor; settled: tf.Tensor } {
  const [topK, topP, minPFirst, minPLast] = [SETTING.topK, SETTING.topP, SETTING.minPFirst, SETTING.minPLast]
    .map((i) => columns[i]);
  const n = weights.shape[1];
  const sums = tf.cumsum(weights, 1), before = tf.cumsum(weights, 1, true);
  const seen = tf.max(sums, 1, true);
  // What comes after the last candidate weighs no more than it; where that is nothing, or no token comes, everything has ended.
  const last = tf.min(weights, 1, true), nothing = tf.cast(tf.lessEqual(last, 0), "float32");
  const least = complete ? tf.scalar(-1) : tf.sub(last, nothing);
  const weightOf = (kept: tf.Tensor) => tf.max(tf.mul(sums, tf.cast(kept, "float32")), 1, true); // [B, 1]

  // top-k, with min-p if that comes first: a number of candidates, if it ends among them.
  const rank = tf.sub(tf.minimum(topK, n), 1), kth = ops.gatherInRows(weights, tf.cast(rank, "int32") as tf.Tensor2D);
  const first = tf.logicalAnd(tf.greaterEqual(weights, kth), tf.greaterEqual(weights, minPFirst));
  const firstEnds = tf.logicalOr(tf.less(least, kth), tf.less(least, minPFirst));
  const firstIsAll = tf.logicalAnd(tf.greaterEqual(topK, UNLIMITED), tf.lessEqual(minPFirst, 0));
  const total = tf.where(firstEnds, weightOf(first), totalOfAll);

  // top-p, and min-p if that comes last.
  const share = tf.mul(topP, total);
  const kept = tf.logicalAnd(tf.logicalAnd(first, tf.less(before, share)), tf.greaterEqual(weights, minPLast));
  const ends = tf.logicalOr(firstEnds, tf.logicalOr(tf.greaterEqual(seen, share), tf.less(least, minPLast)));
  const keptWeight = weightOf(kept);

  // Where top-p ends behind the candidates, what it keeps is its share and, at most, one more token.
  const atLeast = tf.where(ends, keptWeight, share);
  const atMost = tf.where(ends, keptWeight, tf.minimum(tf.add(share, least), total));
  const [low, high] = [atLeast, atMost].map((total) =>
    placeOf(sums, below(total, tf.mul(total, columns[SETTING.uniform])))
  );
  const known = tf.logicalOr(firstEnds, firstIsAll);
  const decided = tf.logicalOr(
    ends,
    tf.logicalAnd(tf.lessEqual(minPLast, 0), tf.logicalAnd(tf.equal(low, high), tf.less(low, int(n)))),
  );
  return {
    ids: ops.gatherInRows(ids, tf.minimum(low, int(n - 1)) as tf.Tensor2D),
    settled: tf.logicalAnd(known, decided),
  };
}

/** The number of tokens from which on top-k keeps all. */
export const UNLIMITED = 2 ** 24;

/**
 * From the part in which each group [B, K] of `size` columns lies, what `take` gives for its number within that part:
 * [B, K · each].
 */
function pick<P extends Part>(
  parts: readonly P[],
  groups: tf.Tensor2D,
  size: number,
  take: (part: P, groups: tf.Tensor2D) => tf.Tensor,
  each = 1,
): tf.Tensor2D {
  const taken = parts.map((part) => {
    const own = tf.sub(groups, int(part.start / size));
    const inside = tf.minimum(tf.maximum(own, int(0)), int(part.padded / size - 1)) as tf.Tensor2D;
    const found = take(part, inside);
    if (parts.length === 1) return found;
    const K = groups.shape[1], mine = tf.cast(tf.equal(own, inside), "float32");
    if (each === 1) return tf.mul(found, mine);
    const grouped = tf.mul(tf.reshape(found, [-1, K, each]), tf.reshape(mine, [-1, K, 1]));
    return tf.reshape(grouped, [-1, K * each]);
  });
  return taken.reduce((a, b) => tf.add(a, b)) as tf.Tensor2D;
}

/** Columns, with the padding of the parts before them -> tokens. */
function idOf(parts: readonly Part[], columns: tf.Tensor): tf.Tensor2D {
  return shifted(columns, parts, "start", -1);
}

/** Tokens -> columns, with the padding of the parts before them. */
function columnOf(parts: readonly Part[], ids: tf.Tensor): tf.Tensor2D {
  return shifted(ids, parts, "first", 1);
}

/** Adds, or takes away, the padding before each of int [B, K], where parts begin at the numbers called `begin`. */
function shifted(x: tf.Tensor, parts: readonly Part[], begin: "start" | "first", sign: 1 | -1): tf.Tensor2D {
  return parts.slice(1).reduce((sum, part, i) => {
    const padding = int(sign * (parts[i].padded - parts[i].width));
    return tf.add(sum, tf.mul(tf.cast(tf.greaterEqual(x, int(part[begin])), "int32"), padding));
  }, x) as tf.Tensor2D;
}

function flat(x: tf.Tensor): tf.Tensor1D {
  return tf.reshape(x, [-1]);
}

function int(value: number): tf.Scalar {
  return tf.scalar(value, "int32");
}
