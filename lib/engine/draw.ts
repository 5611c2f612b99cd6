/**
 * Decides on the host what the sampler on the device could not: a draw among more tokens than it looks at. Nothing is sorted
 * but the few tokens around the places that matter: tokens are put into buckets by their logits, and the buckets' weights say
 * in which of them a filter ends and the draw lies.
 */

import { isGreedy, type SamplingSettings } from "./sampling.ts";

/** Buckets, a power of two, and how many of them a unit of the logits is divided into; the last one has all the rest. */
const BUCKETS = 4096, PER_UNIT = 64;

/** A row: its logits after bias, penalties and temperature. */
export interface ScaledRow {
  /** The largest of them. */
  max: number;
  parts: readonly {
    /** The number of real tokens; what follows is padding. */
    width: number;
    scaled: Float32Array;
    softmax: Float32Array;
    /** The part's weight, where that of the most likely token of all parts is 1. */
    total: number;
  }[];
}

/**
 * The token of a row at which the cumulative distribution passes `uniform`. Tokens go by falling probability, among equal
 * ones by id, as on the device.
 */
export function draw(row: ScaledRow, settings: SamplingSettings, uniform: number): number {
  const tokens = new FallingTokens(row), { all } = tokens, { topK, topP, minP, filterOrder } = settings;
  if (isGreedy(settings)) return tokens.idAt(0);
  const byK = topK > 0 && topK < all.count ? tokens.atLeast(tokens.valueAt(topK - 1)) : all;
  const byMinP = minP > 0 ? tokens.atLeast(row.max + Math.log(minP)) : all;
  const byP = (kept: Prefix) => topP < 1 ? shorter(tokens.withWeight(topP * kept.weight), kept) : kept;
  const kept = filterOrder === "vllm" ? byP(shorter(byMinP, byK)) : shorter(byP(byK), byMinP);
  return tokens.idAt(Math.max(0, Math.min(tokens.upTo(uniform * kept.weight).count, kept.count - 1)));
}

/** The most likely tokens: how many, and their weight. */
interface Prefix {
  count: number;
  weight: number;
}

function shorter(a: Prefix, b: Prefix): Prefix {
  return a.count < b.count ? a : b;
}

/** All tokens by falling logit, sorted as far as is asked. */
class FallingTokens {
  readonly #counts = new Int32Array(BUCKETS);
  readonly #weights = new Float64Array(BUCKETS);
  readonly #sorted = new Map<number, Token[]>();

  constructor(private readonly row: ScaledRow) {
    const { max, parts } = row, counts = this.#counts, weights = this.#weights; // looked up once, not for each token
    for (const { width, scaled, softmax, total } of parts) {
      for (let at = 0; at < width; at++) {
        const bucket = bucketOf(scaled[at], max);
        counts[bucket]++;
        weights[bucket] += softmax[at] * total;
      }
    }
  }

  /** Every token. */
  get all(): Prefix {
    return this.#until(() => false, { inclusive: true });
  }

  /** The token at a rank, from 0. */
  idAt(rank: number): number {
    return this.#at(rank).id;
  }

  /** Its logit. */
  valueAt(rank: number): number {
    return this.#at(rank).value;
  }

  /** The tokens with a logit of at least so much. */
  atLeast(value: number): Prefix {
    const last = bucketOf(value, this.row.max), prefix = { count: 0, weight: 0 };
    for (let bucket = 0; bucket < last; bucket++) {
      prefix.count += this.#counts[bucket];
      prefix.weight += this.#weights[bucket];
    }
    for (const token of this.#tokensOf(last)) {
      if (!(token.value >= value)) break;
      prefix.count++;
      prefix.weight += token.weight;
    }
    return prefix;
  }

  /** The fewest that have at least that weight. */
  withWeight(wanted: number): Prefix {
    return this.#until((weight) => weight >= wanted, { inclusive: true });
  }

  /** As many as have no more than that weight. */
  upTo(limit: number): Prefix {
    return this.#until((weight) => weight > limit, { inclusive: false });
  }

  /** The tokens up to the one that brings their weight to where `reached` is true, with it or without; all if none does. */
  #until(reached: (weight: number) => boolean, { inclusive }: { inclusive: boolean }): Prefix {
    let bucket = 0, count = 0, weight = 0;
    while (bucket < BUCKETS && !reached(weight + this.#weights[bucket])) {
      count += this.#counts[bucket];
      weight += this.#weights[bucket++];
    }
    if (bucket === BUCKETS) return { count, weight };
    for (const token of this.#tokensOf(bucket)) {
      const next = weight + token.weight;
      if (reached(next)) return inclusive ? { count: count + 1, weight: next } : { count, weight };
      count++;
      weight = next;
    }
    return { count, weight }; // summed up one by one, the bucket came to a little less
  }

  #at(rank: number): Token {
    let bucket = 0, before = 0;
    while (before + this.#counts[bucket] <= rank) before += this.#counts[bucket++];
    return this.#tokensOf(bucket)[rank - before];
  }

  /** By falling logit, and among equal ones by id. */
  #tokensOf(bucket: number): Token[] {
    let tokens = this.#sorted.get(bucket);
    if (tokens) return tokens;
    this.#sorted.set(bucket, tokens = []);
    const { max, parts } = this.row;
    let first = 0;
    for (const { width, scaled, softmax, total } of parts) {
      for (let at = 0; at < width; at++) {
        if (bucketOf(scaled[at], max) !== bucket) continue;
        tokens.push({ id: first + at, value: scaled[at], weight: softmax[at] * total });
      }
      first += width;
    }
    return tokens.sort((a, b) => b.value - a.value || a.id - b.id);
  }
}

function bucketOf(value: number, max: number): number {
  const distance = (max - value) * PER_UNIT, last = BUCKETS - 1;
  return distance < last ? distance & last : last; // several times faster than Math.floor
}

interface Token {
  id: number;
  value: number;
  weight: number;
}
