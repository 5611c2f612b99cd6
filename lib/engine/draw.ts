/**
 * Decides on the host what the sampler on the device could not: a draw among more tokens than it looks at. Nothing is sorted
 * but the few tokens around the places that matter: tokens are put into buckets by their logits, and the buckets' weights say
 * in which of them a filter ends and the draw lies.
 */

import { isGreedy, type SamplingSettings } from "./sampling.ts";

/** Buckets, and how many of them a logit's unit (after the temperature) is divided into; the last one has all the rest. */
const BUCKETS = 4096, PER_UNIT = 64;

/** A part of a row: logits divided by the temperature, and their softmax. */
export interface RowPart {
  /** The number of real tokens; what follows is padding. */
  width: number;
  scaled: Float32Array;
  weights: Float32Array;
}

/**
 * The token of a row at which the cumulative distribution passes `uniform`. Tokens go by falling probability, among equal
 * ones by id, as on the device.
 */
export function draw(parts: readonly RowPart[], settings: SamplingSettings, uniform: number): number {
  const tokens = new FallingTokens(parts);
  if (isGreedy(settings)) return tokens.idAt(0);
  const { topK, topP, minP, filterOrder } = settings, all = tokens.all;
  const byK = topK > 0 && topK < all.count ? tokens.atLeast(tokens.valueAt(topK - 1)) : all;
  const byMinP = minP > 0 ? tokens.atLeast(tokens.largest + Math.log(minP)) : all;
  const byP = (kept: Prefix) => topP < 1 ? shorter(tokens.withWeight(topP * kept.weight), kept) : kept;
  const kept = filterOrder === "vllm" ? byP(shorter(byMinP, byK)) : shorter(byP(byK), byMinP);
  return tokens.idAt(Math.min(tokens.upTo(uniform * kept.weight).count, kept.count - 1));
}

/** The most likely tokens: how many, and their weight. */
interface Prefix {
  count: number;
  weight: number;
}

function shorter(a: Prefix, b: Prefix): Prefix {
  return a.count < b.count ? a : b;
}

/** All tokens by falling logit, sorted as far as is asked. A token's weight is its probability times a number. */
class FallingTokens {
  readonly #values: Float32Array;
  readonly #weights: Float64Array;
  /** Ids, bucket by bucket. */
  readonly #ids: Int32Array;
  /** Where each bucket begins, and where the last one ends. */
  readonly #starts = new Int32Array(BUCKETS + 1);
  readonly #bucketWeights = new Float64Array(BUCKETS);
  readonly #sorted = new Uint8Array(BUCKETS);
  readonly #largest: number;

  constructor(parts: readonly RowPart[]) {
    const count = parts.reduce((sum, { width }) => sum + width, 0);
    this.#values = new Float32Array(count);
    this.#weights = new Float64Array(count);
    this.#ids = new Int32Array(count);
    const largest = parts.map(({ scaled }) => largestOf(scaled));
    this.#largest = Math.max(...largest);
    let first = 0;
    for (const [i, { width, scaled, weights }] of parts.entries()) {
      this.#values.set(scaled.subarray(0, width), first);
      const factor = Math.exp(largest[i] - this.#largest) / largestOf(weights); // the largest token of all weighs 1
      for (let id = 0; id < width; id++) this.#weights[first + id] = weights[id] * factor;
      first += width;
    }
    const buckets = new Uint16Array(count), starts = this.#starts;
    for (let id = 0; id < count; id++) {
      const bucket = buckets[id] = this.#bucketOf(this.#values[id]);
      starts[bucket + 1]++;
      this.#bucketWeights[bucket] += this.#weights[id];
    }
    for (let bucket = 0; bucket < BUCKETS; bucket++) starts[bucket + 1] += starts[bucket];
    const ends = starts.slice();
    for (let id = 0; id < count; id++) this.#ids[ends[buckets[id]]++] = id;
  }

  /** Every token. */
  get all(): Prefix {
    return { count: this.#ids.length, weight: this.#bucketWeights.reduce((sum, weight) => sum + weight, 0) };
  }

  /** The largest value. */
  get largest(): number {
    return this.#largest;
  }

  /** The token at a rank, from 0. */
  idAt(rank: number): number {
    let bucket = 0;
    while (this.#starts[bucket + 1] <= rank) bucket++;
    return this.#sortedBucket(bucket)[rank - this.#starts[bucket]];
  }

  /** Its value. */
  valueAt(rank: number): number {
    return this.#values[this.idAt(rank)];
  }

  /** The tokens with a value of at least so much. */
  atLeast(value: number): Prefix {
    const last = this.#bucketOf(value), within = this.#sortedBucket(last);
    let count = this.#starts[last], weight = 0;
    for (let bucket = 0; bucket < last; bucket++) weight += this.#bucketWeights[bucket];
    for (const id of within) {
      if (!(this.#values[id] >= value)) break;
      count++;
      weight += this.#weights[id];
    }
    return { count, weight };
  }

  /** The fewest that have at least that weight. */
  withWeight(wanted: number): Prefix {
    return this.#before((weight) => weight >= wanted, true);
  }

  /** As many as have no more than that weight. */
  upTo(limit: number): Prefix {
    return this.#before((weight) => weight > limit, false);
  }

  /** The tokens before, or up to, the one that brings their weight to where `reached` is true; all of them if none does. */
  #before(reached: (weight: number) => boolean, inclusive: boolean): Prefix {
    let bucket = 0, count = 0, weight = 0;
    while (bucket < BUCKETS && !reached(weight + this.#bucketWeights[bucket])) {
      weight += this.#bucketWeights[bucket++];
      count = this.#starts[bucket];
    }
    if (bucket === BUCKETS) return { count, weight };
    for (const id of this.#sortedBucket(bucket)) {
      const next = weight + this.#weights[id];
      if (reached(next)) return inclusive ? { count: count + 1, weight: next } : { count, weight };
      count++;
      weight = next;
    }
    return { count, weight }; // the bucket's sum was rounded the other way
  }

  #bucketOf(value: number): number {
    return Math.min((this.#largest - value) * PER_UNIT, BUCKETS - 1) | 0; // NaN goes to the first
  }

  #sortedBucket(bucket: number): Int32Array {
    const ids = this.#ids.subarray(this.#starts[bucket], this.#starts[bucket + 1]);
    if (!this.#sorted[bucket]) ids.sort((a, b) => this.#values[b] - this.#values[a] || a - b);
    this.#sorted[bucket] = 1;
    return ids;
  }
}

function largestOf(numbers: Float32Array): number {
  let largest = -Infinity;
  for (let i = 0; i < numbers.length; i++) if (numbers[i] > largest) largest = numbers[i];
  return largest;
}
