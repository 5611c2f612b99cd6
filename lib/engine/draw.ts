/**
 * Decides on the host what the sampler on the device could not: a draw among more tokens than it looks at. Nothing is sorted
 * but the few tokens around the places that matter: tokens are put into buckets by their weights, and the buckets' sums say in
 * which of them a filter ends and the draw lies.
 */

import { isGreedy, type SamplingSettings } from "./sampling.ts";

/** A part of a row. */
export interface RowPart {
  /** The number of real tokens; what follows is padding. */
  width: number;
  /** From 0 to 1, which is the weight of the most likely token of all parts. */
  weights: Float32Array;
}

/**
 * The token of a row at which the cumulative distribution passes `uniform`. Tokens go by falling weight, among equal ones by
 * id, as on the device.
 */
export function draw(parts: readonly RowPart[], settings: SamplingSettings, uniform: number): number {
  const tokens = new FallingTokens(parts), { all } = tokens, { topK, topP, minP, filterOrder } = settings;
  if (isGreedy(settings)) return tokens.idAt(0);
  const byK = topK > 0 && topK < all.count ? tokens.atLeast(tokens.weightAt(topK - 1)) : all;
  const byMinP = minP > 0 ? tokens.atLeast(minP) : all;
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

/**
 * Buckets go by the bits of a weight as a float32: its exponent and the first six bits after the point. That is quick, and
 * neighbours differ by 1/64.
 */
const BUCKET_BITS = 17, BUCKETS = (0x3f80_0000 >>> BUCKET_BITS) + 1;

/** All tokens by falling weight, sorted as far as is asked. */
class FallingTokens {
  readonly #counts = new Int32Array(BUCKETS);
  readonly #sums = new Float64Array(BUCKETS);
  readonly #sorted = new Map<number, Tokens>();

  constructor(private readonly parts: readonly RowPart[]) {
    const counts = this.#counts, sums = this.#sums; // looked up once, not for each token
    for (const { width, weights } of parts) {
      const bits = bitsOf(weights);
      for (let at = 0; at < width; at++) {
        const bucket = bucketOf(bits[at]);
        counts[bucket]++;
        sums[bucket] += weights[at];
      }
    }
  }

  /** Every token. */
  get all(): Prefix {
    return this.#until(() => false, { inclusive: true });
  }

  /** The token at a rank, from 0. */
  idAt(rank: number): number {
    const { bucket, place } = this.#at(rank);
    return this.#tokensOf(bucket).ids[place];
  }

  /** Its weight. */
  weightAt(rank: number): number {
    const { bucket, place } = this.#at(rank);
    return this.#tokensOf(bucket).weights[place];
  }

  /** The tokens with at least so much weight each. */
  atLeast(weight: number): Prefix {
    const last = bucketOf(bitsOf(Float32Array.of(weight))[0]), prefix = { count: 0, weight: 0 };
    for (let bucket = BUCKETS - 1; bucket > last; bucket--) {
      prefix.count += this.#counts[bucket];
      prefix.weight += this.#sums[bucket];
    }
    for (const own of this.#tokensOf(last).weights) {
      if (own < weight) break;
      prefix.count++;
      prefix.weight += own;
    }
    return prefix;
  }

  /** The fewest that have at least that weight together. */
  withWeight(wanted: number): Prefix {
    return this.#until((weight) => weight >= wanted, { inclusive: true });
  }

  /** As many as have no more than that weight together. */
  upTo(limit: number): Prefix {
    return this.#until((weight) => weight > limit, { inclusive: false });
  }

  /** The tokens up to the one that brings their weight to where `reached` is true, with it or without; all if none does. */
  #until(reached: (weight: number) => boolean, { inclusive }: { inclusive: boolean }): Prefix {
    const counts = this.#counts, sums = this.#sums;
    let bucket = BUCKETS - 1, count = 0, weight = 0;
    while (bucket >= 0 && !reached(weight + sums[bucket])) {
      count += counts[bucket];
      weight += sums[bucket--];
    }
    if (bucket < 0) return { count, weight };
    for (const own of this.#tokensOf(bucket).weights) {
      const next = weight + own;
      if (reached(next)) return inclusive ? { count: count + 1, weight: next } : { count, weight };
      count++;
      weight = next;
    }
    return { count, weight }; // summed up one by one, the bucket came to a little less
  }

  /** The bucket of a rank, and its place there. */
  #at(rank: number): { bucket: number; place: number } {
    let bucket = BUCKETS - 1, before = 0;
    while (before + this.#counts[bucket] <= rank) before += this.#counts[bucket--];
    return { bucket, place: rank - before };
  }

  /** By falling weight, and among equal ones by id. */
  #tokensOf(bucket: number): Tokens {
    const known = this.#sorted.get(bucket);
    if (known) return known;
    const keys = new Float64Array(this.#counts[bucket]); // numbers alone are sorted many times faster than objects
    let first = 0, count = 0;
    for (const { width, weights } of this.parts) {
      const bits = bitsOf(weights);
      for (let at = 0; at < width; at++) {
        if (bucketOf(bits[at]) === bucket) keys[count++] = first + at - bits[at] * MOST_TOKENS;
      }
      first += width;
    }
    const bits = Int32Array.from(keys.sort(), (key) => Math.ceil(-key / MOST_TOKENS));
    const tokens = { ids: keys.map((key, i) => key + bits[i] * MOST_TOKENS), weights: new Float32Array(bits.buffer) };
    this.#sorted.set(bucket, tokens);
    return tokens;
  }
}

/** Some tokens in order. */
interface Tokens {
  ids: Float64Array;
  weights: Float32Array;
}

/** An id and the bits of a weight together are a whole number below 2⁵³. */
const MOST_TOKENS = 2 ** 21;

function bitsOf({ buffer, byteOffset, length }: Float32Array): Int32Array {
  return new Int32Array(buffer, byteOffset, length);
}

/** Of a weight's bits. What is no number goes with the largest. */
function bucketOf(bits: number): number {
  const bucket = bits >>> BUCKET_BITS;
  return bucket < BUCKETS ? bucket : BUCKETS - 1;
}
