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

/** What a backend must bring; all else is tfjs. */
export interface SamplingOps {
  /** x [B, M] or [B, M, size], indices int [B, K] -> [B, K] or [B, K, size]: in each row, the entries at its own indices. */
  gatherInRows(x: tf.Tensor, indices: tf.Tensor2D): tf.Tensor;
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
export interface SampledTokens {
  /** int [B]. */
  ids: tf.Tensor1D;
  /** int [B]: 0 where the candidates could not decide, so that `ids` means nothing. */
  settled: tf.Tensor1D;
  /**
   * What decides unsettled rows: for each part of the logits, edited and divided by the temperature, [B, m + padding], and
   * their softmax, of the same shape.
   */
  scaled: tf.Tensor2D[];
  weights: tf.Tensor2D[];
}

/** Log-probabilities of the model itself: temperature, penalties and filters have no part in them. */
export interface Logprobs {
  /** [B]: of the chosen tokens. */
  chosen: tf.Tensor1D;
  /** int [B, n]: the most likely tokens, the likeliest first. */
  topIds: tf.Tensor2D;
  /** [B, n]: theirs. */
  top: tf.Tensor2D;
}

/** How many of the most likely tokens a filtered row is drawn from, before the host has to help. */
export const CANDIDATES = 64;

/** Columns that are summed up together. */
const BLOCK = 64;

/** What fills a part up to whole blocks: no token, and never the largest. */
const NOTHING = -1e30;

/** Just below 1: a target that is rounded up to the total must not lie behind the last token. */
const BELOW_ONE = 1 - 2 ** -23;

/** The next token of every row, of logits [B, V] in parts side by side. Works in captures; no shape or value is baked in. */
export function sample(
  ops: SamplingOps,
  logits: readonly tf.Tensor2D[],
  { settings, edits }: SamplerTensors,
): SampledTokens {
  const columns = tf.split(settings, SETTING.count, 1) as tf.Tensor2D[];
  const parts = partsOf(logits).map((part) => {
    const scaled = tf.div(edited(pad(part), part, edits), columns[SETTING.temperature]) as tf.Tensor2D;
    return measure(ops, part, scaled, CANDIDATES);
  });
  const largest = parts.map(({ max }) => max).reduce((a, b) => tf.maximum(a, b));
  for (const part of parts) part.total = tf.mul(part.total, tf.exp(tf.sub(part.max, largest)));
  const blocks = cumulate(joined(parts.map(({ blocks, total }) => tf.mul(blocks, total) as tf.Tensor2D)));
  const byId = drawById(ops, parts, blocks, columns);
  const best = merge(ops, parts, CANDIDATES), vocabSize = parts.reduce((sum, { width }) => sum + width, 0);
  const complete = best.ids.shape[1] === vocabSize;
  const byRank = drawByRank(ops, { ...best, complete }, largest, blocks.total, columns);
  const filtered = tf.greater(columns[SETTING.filtered], 0);
  return {
    ids: flat(tf.where(filtered, byRank.ids, byId)),
    settled: flat(tf.cast(tf.logicalOr(byRank.settled, tf.logicalNot(filtered)), "int32")),
    scaled: parts.map(({ scaled }) => scaled),
    weights: parts.map(({ weights }) => weights),
  };
}

/** Log-probabilities of chosen tokens, int [B], and of the `top` most likely ones, of logits [B, V] in parts. */
export function logprobs(
  ops: SamplingOps,
  logits: readonly tf.Tensor2D[],
  ids: tf.Tensor1D,
  { top }: { top: number },
): Logprobs {
  const parts = partsOf(logits).map((part) => measure(ops, part, pad(part), Math.max(1, top)));
  const largest = parts.map(({ max }) => max).reduce((a, b) => tf.maximum(a, b));
  const total = parts.map(({ max, total }) => tf.mul(total, tf.exp(tf.sub(max, largest)))).reduce((a, b) =>
    tf.add(a, b)
  );
  const logTotal = tf.add(largest, tf.log(total)); // [B, 1]
  const column = tf.reshape(ids, [-1, 1]) as tf.Tensor2D;
  const best = merge(ops, parts, Math.max(1, top));
  return {
    chosen: flat(tf.sub(pick(parts, column, ({ scaled }, local) => ops.gatherInRows(scaled, local)), logTotal)),
    topIds: best.ids,
    top: tf.sub(best.values, logTotal),
  };
}

/** A part of the logits: columns `first` to `first + width` of all, then padding up to whole blocks. */
interface Part {
  first: number;
  width: number;
  padded: number;
  logits: tf.Tensor2D;
}

/** What is known of a part. */
interface Measured extends Part {
  /** [B, padded]. */
  scaled: tf.Tensor2D;
  /** [B, padded]: the part's softmax. */
  weights: tf.Tensor2D;
  /** [B, padded / BLOCK]: sums of the softmax. */
  blocks: tf.Tensor2D;
  /** The part's best. */
  best: Candidates;
  /** [B, 1]: the largest. */
  max: tf.Tensor;
  /** [B, 1]: the sum of the exponentials where that of the largest is 1. */
  total: tf.Tensor;
}

/** Entries of a row in falling order, [B, n]; among equal ones the lower id comes first. */
interface Candidates {
  values: tf.Tensor2D;
  ids: tf.Tensor2D;
}

function partsOf(logits: readonly tf.Tensor2D[]): Part[] {
  let end = 0;
  return logits.map((logits) => {
    const width = logits.shape[1], first = end;
    end += width;
    return { first, width, padded: (Math.floor(width / BLOCK) + 1) * BLOCK, logits };
  });
}

/** A copy with at least one column of padding. */
function pad({ logits, width, padded }: Part): tf.Tensor2D {
  return tf.pad(logits, [[0, 0], [0, padded - width]], NOTHING);
}

/** [B, padded] with the edits that concern the part. The others change padding, and leave it as it is. */
function edited(x: tf.Tensor2D, { first, width, padded }: Part, edits: tf.Tensor2D): tf.Tensor2D {
  const [row, token, add, repetition, subtract] = tf.split(edits, 5, 1);
  const here = tf.logicalAnd(tf.greaterEqual(token, first), tf.less(token, first + width)); // [E, 1]
  // column = here ? token − first : width, which is the first of the padding
  const column = tf.add(
    tf.mul(tf.cast(here, "int32"), tf.sub(tf.cast(token, "int32"), int(first + width))),
    int(width),
  );
  const places = tf.add(tf.mul(tf.cast(row, "int32"), int(padded)), column); // [E, 1]
  const all = tf.reshape(x, [-1]), old = tf.gatherND(all, places); // [E]
  const biased = tf.add(old, flat(add)), penalty = flat(repetition);
  const penalized = tf.where(tf.greater(biased, 0), tf.div(biased, penalty), tf.mul(biased, penalty));
  const changed = tf.where(flat(here), tf.sub(penalized, flat(subtract)), old);
  return tf.reshape(tf.tensorScatterUpdate(all, places, changed), [-1, padded]);
}

function measure(ops: SamplingOps, part: Part, scaled: tf.Tensor2D, count: number): Measured {
  const weights = tf.softmax(scaled);
  const local = largest(ops, scaled, Math.min(count, part.width));
  const max = tf.max(local.values, 1, true);
  const first = tf.sum(tf.mul(local.ids, tf.tensor2d([onehot(local.ids.shape[1])], undefined, "int32")), 1, true);
  const share = ops.gatherInRows(weights, first as tf.Tensor2D); // what the softmax made of exp(0) = 1
  return {
    ...part,
    scaled,
    weights,
    blocks: tf.sum(tf.reshape(weights, [-1, part.padded / BLOCK, BLOCK]), 2),
    best: { values: local.values, ids: part.first ? tf.add(local.ids, int(part.first)) : local.ids },
    max,
    total: tf.div(1, share),
  };
}

/** x [B, M], M a multiple of {@link BLOCK} -> the `count` largest of each row. */
function largest(ops: SamplingOps, x: tf.Tensor2D, count: number): Candidates {
  const M = x.shape[1];
  // Few are found quickly by their blocks: the largest of a row lie in as many blocks as they are, those of the largest maxima.
  const size = M > 2 * BLOCK * count ? BLOCK : 8;
  if (M <= 8 * count || M / size <= count) {
    const { values, indices } = tf.topk(x, count);
    return { values, ids: indices };
  }
  const grouped = tf.reshape(x, [-1, M / size, size]);
  // In order of their ids, so that among equal entries those with lower ids stay in front.
  const byMax = tf.topk(tf.max(grouped, 2), count).indices;
  const blocks = tf.cast(tf.neg(tf.topk(tf.neg(tf.cast(byMax, "float32")), count).values), "int32") as tf.Tensor2D;
  const inside = tf.reshape(ops.gatherInRows(grouped, blocks), [-1, count * size]) as tf.Tensor2D;
  const found = largest(ops, inside, count), block = tf.floorDiv(found.ids, int(size)) as tf.Tensor2D;
  const moved = tf.mul(tf.sub(ops.gatherInRows(blocks, block), block), int(size)); // from a place inside to an id
  return { values: found.values, ids: tf.add(found.ids, moved) };
}

/** The best of all parts. */
function merge(ops: SamplingOps, parts: readonly Measured[], count: number): Candidates {
  if (parts.length === 1) return parts[0].best;
  const values = joined(parts.map(({ best }) => best.values)), ids = joined(parts.map(({ best }) => best.ids));
  const n = Math.min(count, values.shape[1]);
  // TensorFlow sorts when all are asked for, and its sort is not made for NaN; so never all.
  const found = tf.topk(n < values.shape[1] ? values : tf.pad(values, [[0, 0], [0, 1]], NOTHING), n);
  return { values: found.values, ids: ops.gatherInRows(ids, found.indices) as tf.Tensor2D };
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
  parts: readonly Measured[],
  { sums, total }: Cumulated,
  columns: readonly tf.Tensor2D[],
): tf.Tensor {
  const target = below(total, tf.mul(total, columns[SETTING.uniform]));
  const passed = tf.lessEqual(sums, target), block = placeOf(sums, target);
  const before = tf.max(tf.mul(sums, tf.cast(passed, "float32")), 1, true);
  const numbered = parts.map((part, i) => {
    const first = parts.slice(0, i).reduce((sum, { padded }) => sum + padded / BLOCK, 0);
    return { ...part, first, width: part.padded / BLOCK };
  });
  const inside = cumulate(
    pick(numbered, block, ({ weights, width, total }, local) => {
      const rows = tf.reshape(weights, [-1, width, BLOCK]);
      return tf.mul(tf.reshape(ops.gatherInRows(rows, local), [-1, BLOCK]), total);
    }) as tf.Tensor2D,
  );
  const offset = placeOf(inside.sums, below(inside.total, tf.sub(target, before)));
  // Blocks count the padding of the parts before them.
  const padding = numbered.slice(1).map(({ first }, i) => {
    const { padded, width } = parts[i];
    return tf.mul(tf.cast(tf.greaterEqual(block, int(first)), "int32"), int(padded - width));
  });
  return padding.reduce((id, padding) => tf.sub(id, padding), tf.add(tf.mul(block, int(BLOCK)), offset));
}

/** int [B, 1], bool [B, 1]: the token at which the distribution of what the filters leave, by rank, passes it; and if it is sure. */
function drawByRank(
  ops: SamplingOps,
  { values, ids, complete }: Candidates & { complete: boolean },
  largest: tf.Tensor,
  totalOfAll: tf.Tensor,
  columns: readonly tf.Tensor2D[],
): { ids: tf.Tensor; settled: tf.Tensor } {
  const [topK, topP, minPFirst, minPLast] = [SETTING.topK, SETTING.topP, SETTING.minPFirst, SETTING.minPLast]
    .map((i) => columns[i]);
  const n = values.shape[1];
  const weights = tf.exp(tf.sub(values, largest)) as tf.Tensor2D; // [B, n]
  const sums = tf.cumsum(weights, 1), before = tf.cumsum(weights, 1, true);
  const seen = tf.max(sums, 1, true);
  // What comes after the last candidate is no more than it; after the last token, nothing.
  const leastValue = complete ? tf.scalar(2 * NOTHING) : tf.min(values, 1, true);
  const leastWeight = complete ? tf.scalar(-1) : tf.min(weights, 1, true);
  const weightOf = (kept: tf.Tensor) => tf.max(tf.mul(sums, tf.cast(kept, "float32")), 1, true); // [B, 1]

  // top-k, with min-p if that comes first: a number of candidates, if it ends among them.
  const last = tf.sub(tf.minimum(topK, n), 1), kth = ops.gatherInRows(values, tf.cast(last, "int32") as tf.Tensor2D);
  const first = tf.logicalAnd(tf.greaterEqual(values, kth), tf.greaterEqual(weights, minPFirst));
  const firstEnds = tf.logicalOr(tf.less(leastValue, kth), tf.less(leastWeight, minPFirst));
  const firstIsAll = tf.logicalAnd(tf.greaterEqual(topK, UNLIMITED), tf.lessEqual(minPFirst, 0));
  const total = tf.where(firstEnds, weightOf(first), totalOfAll);

  // top-p, and min-p if that comes last.
  const share = tf.mul(topP, total);
  const kept = tf.logicalAnd(tf.logicalAnd(first, tf.less(before, share)), tf.greaterEqual(weights, minPLast));
  const ends = tf.logicalOr(firstEnds, tf.logicalOr(tf.greaterEqual(seen, share), tf.less(leastWeight, minPLast)));
  const keptWeight = weightOf(kept);

  // Where top-p ends behind the candidates, what it keeps is its share and, at most, one more token.
  const least = tf.where(ends, keptWeight, share);
  const most = tf.where(ends, keptWeight, tf.minimum(tf.add(share, leastWeight), total));
  const [low, high] = [least, most].map((total) =>
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

/** From the part in which an id [B, 1] lies, what `take` gives for its place there. */
function pick<P extends { first: number; width: number }>(
  parts: readonly P[],
  id: tf.Tensor2D,
  take: (part: P, local: tf.Tensor2D) => tf.Tensor,
): tf.Tensor {
  return parts.map((part) => {
    const local = tf.sub(id, int(part.first));
    const inside = tf.minimum(tf.maximum(local, int(0)), int(part.width - 1)) as tf.Tensor2D;
    const taken = take(part, inside);
    return parts.length === 1 ? taken : tf.mul(taken, tf.cast(tf.equal(local, inside), "float32"));
  }).reduce((a, b) => tf.add(a, b));
}

function joined(parts: readonly tf.Tensor2D[]): tf.Tensor2D {
  return parts.length === 1 ? parts[0] : tf.concat([...parts], 1);
}

function flat(x: tf.Tensor): tf.Tensor1D {
  return tf.reshape(x, [-1]);
}

function int(value: number): tf.Scalar {
  return tf.scalar(value, "int32");
}

function onehot(length: number): number[] {
  return Array.from({ length }, (_, i) => i === 0 ? 1 : 0);
}
