/** What goes into a step of the model: made here for every backend, from the rows and the tokens that they are fed. */

import * as tf from "@tensorflow/tfjs";
import type { BucketInputs, StepInputs } from "../backend/ops.ts";
import type { Backend, StepBuckets } from "../backend/types.ts";
import type { Bucket, Row } from "./bucket.ts";
import type { SampledRow } from "./sampled_row.ts";

/** What to feed a row. */
export interface Feed {
  /** The row. */
  row: Row;
  /** The tokens that come after what it holds: one or more. */
  tokens: readonly number[];
  /** What is wanted after them: may be nothing, or several things after one token. Default: the most likely next token. */
  wanted?: readonly Wanted[];
}

/** A next token that is wanted. */
export interface Wanted {
  /** Which token of the feed it comes after, by index. */
  after: number;
  /** Who chooses it; or the token that it is, whose log-probability is wanted. Default: the most likely one. */
  next?: SampledRow | number;
}

/** A step of the rows of one lane, as numbers. */
export interface StepNumbers {
  /** [N] */
  tokens: number[];
  /** [M], or null if it is all of them. */
  wanted: number[] | null;
  /** For each of the M the index of its feed, −1 for what is inert, and who chooses. */
  choices: { feed: number; next?: SampledRow | number }[];
  /** By bucket. */
  parts: Part[];
}

interface Part {
  bucket: Bucket;
  /** [n] */
  positions: number[];
  rectangle: { tokens: number[][]; rows: number[]; columns: number[] } | null;
}

/**
 * A step that feeds rows of one lane of a cache, those of `members`. Where each size is compiled for itself, `sizeFor` rounds sizes
 * up; what only fills them is inert: it is written where nobody reads, and gives finite numbers that nobody looks at.
 */
export function stepNumbers(
  feeds: readonly Feed[],
  members: readonly Members[] = membersOf(feeds),
  sizeFor?: Backend["sizeFor"],
): StepNumbers {
  const step: StepNumbers = { tokens: [], wanted: [], choices: [], parts: [] };
  for (const { bucket, order, single } of members) {
    const part: Part = { bucket, positions: [], rectangle: single ? null : { tokens: [], rows: [], columns: [] } };
    const first = step.tokens.length;
    const cells = Array.from({ length: bucket.tensorRows }, (): number[] => []);
    for (const { i, place } of order) {
      const { row, tokens, wanted = [{ after: tokens.length - 1 }] } = feeds[i], start = step.tokens.length;
      tokens.forEach((_, column) => {
        part.positions.push(row.length + column);
        part.rectangle?.rows.push(place);
        part.rectangle?.columns.push(column);
        cells[place].push(start - first + column);
      });
      step.tokens.push(...tokens);
      step.wanted!.push(...wanted.map(({ after }) => start + after));
      step.choices.push(...wanted.map(({ next }) => ({ feed: i, next })));
    }
    fill(step, part, sizeFor);
    if (part.rectangle) {
      const width = cells.reduce((most, { length }) => Math.max(most, length), 0), T = sizeFor?.(width) ?? width;
      part.rectangle.tokens = cells.map((row) => [...row, ...Array(T - row.length).fill(0)]);
    }
    step.parts.push(part);
  }
  const each = step.parts.every(({ rectangle }) => !rectangle) &&
    step.wanted!.length === step.tokens.length && step.wanted!.every((token, i) => token === i);
  if (each) return { ...step, wanted: null };
  const size = Math.max(1, step.wanted!.length); // a step always chooses something
  while (step.wanted!.length < (sizeFor?.(size) ?? size)) {
    step.wanted!.push(0);
    step.choices.push({ feed: -1 });
  }
  return step;
}

/** What a bucket's rows are fed. */
export interface Members {
  bucket: Bucket;
  /** Which feeds, and the places of their rows in the bucket, in the order of these. */
  order: { i: number; place: number }[];
  /** Whether each of its rows is fed one token. */
  single: boolean;
}

/** By bucket; rectangles come last, so that there are as few kinds of steps to be captured as can be. */
function membersOf(feeds: readonly Feed[]): Members[] {
  const byBucket = Map.groupBy(feeds.keys(), (i) => feeds[i].row.bucket);
  const all = Array.from(byBucket, ([bucket, members]): Members => {
    const places = new Map(bucket.rows.map((row, place) => [row, place]));
    const order = members.map((i) => ({ i, place: places.get(feeds[i].row)! })).sort((a, b) => a.place - b.place);
    const single = order.length === bucket.rows.length && order.every(({ i }) => feeds[i].tokens.length === 1);
    return { bucket, order, single };
  });
  return all.sort((a, b) => Number(b.single) - Number(a.single));
}

/**
 * What goes into a step together: all that is fed, unless it is in more buckets than one is captured for. Then there are several
 * steps, one after the other. One of several buckets has as many as it is captured for: empty ones stand for those that are not
 * there.
 */
export function stepsOf(
  feeds: readonly Feed[],
  cache: { readonly emptyBucket: Bucket },
  sizes?: StepBuckets,
): Members[][] {
  const all = membersOf(feeds);
  if (!sizes || all.length === 1) return [all];
  const [singles, rectangles] = [true, false].map((single) => all.filter((one) => one.single === single));
  const count = Math.max(Math.ceil(singles.length / sizes.singles), Math.ceil(rectangles.length / sizes.rectangles));
  const nth = (members: readonly Members[], size: number, n: number, single: boolean): Members[] => {
    const some = members.slice(n * size, (n + 1) * size), { emptyBucket: bucket } = cache;
    return [...some, ...Array<Members>(size - some.length).fill({ bucket, order: [], single })];
  };
  return Array.from({ length: count }, (_, n) => [
    ...nth(singles, sizes.singles, n, true),
    ...n * sizes.rectangles < rectangles.length ? nth(rectangles, sizes.rectangles, n, false) : [],
  ]);
}

/** Adds inert tokens: of rows that are not in use, or of no row at all. */
function fill(step: StepNumbers, { bucket, positions, rectangle }: Part, sizeFor: Backend["sizeFor"]): void {
  const count = rectangle ? sizeFor?.(positions.length) ?? 0 : bucket.tensorRows;
  while (positions.length < count) {
    step.tokens.push(0);
    positions.push(rectangle ? BEYOND : 0);
    if (rectangle) {
      rectangle.rows.push(0);
      rectangle.columns.push(0);
    } else {
      step.wanted!.push(step.tokens.length - 1);
      step.choices.push({ feed: -1 });
    }
  }
}

/** A slot that no cache has: XLA leaves out what is written there, and reads the last row of a table for it. */
const BEYOND = 2 ** 30;

/** As tensors, in the order of {@link inputsOf}. Of `all`, `own` are the caller's to free, the rest the cache's. */
export function toTensors({ tokens, wanted, parts }: StepNumbers): { all: tf.Tensor[]; own: tf.Tensor[] } {
  const own: tf.Tensor[] = [];
  const ints = (values: readonly number[], ...shape: number[]) => {
    const tensor = tf.tensor(Int32Array.from(values), shape.length ? shape : [values.length], "int32");
    own.push(tensor);
    return tensor;
  };
  const all = [ints(tokens), ints(parts.flatMap(({ positions }) => positions)), ...wanted ? [ints(wanted)] : []];
  for (const { bucket, positions, rectangle } of parts) {
    if (parts.length > 1) all.push(ints(positions));
    if (rectangle) {
      const { tokens, rows, columns } = rectangle;
      all.push(ints(tokens.flat(), tokens.length, tokens[0]?.length ?? 0), ints(rows), ints(columns));
    }
    const { slots, rowStarts, caches } = bucket.tensors;
    all.push(slots, ...rowStarts, ...caches.flat());
  }
  return { all, own };
}

/** Which inputs a step has. Steps of one layout differ in sizes only. */
export interface StepLayout {
  /** For each bucket, whether its tokens are seen as a rectangle. */
  readonly rectangles: readonly boolean[];
  /** Whether something is wanted after some of the tokens, not after all. */
  readonly picks: boolean;
}

/** A step's layout. */
export function layoutOf({ parts, wanted }: StepNumbers): StepLayout {
  return { rectangles: parts.map(({ rectangle }) => rectangle !== null), picks: wanted !== null };
}

/** Which of a step's tensors are positions: of all tokens, and where there are several buckets of each one's. */
export function positionsIn(
  tensors: readonly tf.Tensor[],
  layout: StepLayout,
  sizes: ModelSizes,
): number[] {
  const { positions, buckets } = inputsOf(tensors, layout, sizes);
  return [...new Set([positions, ...buckets.map((bucket) => bucket.positions)])].map((one) => tensors.indexOf(one));
}

/** On what in a model the inputs depend. */
export interface ModelSizes {
  /** Groups of heads. */
  readonly groups: number;
  /** Tensors with the caches of each. */
  readonly caches: number;
}

/** Undoes {@link toTensors}. */
export function inputsOf(
  tensors: readonly tf.Tensor[],
  { rectangles, picks }: StepLayout,
  { groups, caches }: ModelSizes,
): StepInputs {
  const rest = [...tensors], next = <T extends tf.Tensor>() => rest.shift() as T;
  const several = <T extends tf.Tensor>(count: number) => rest.splice(0, count) as T[];
  const tokens = next<tf.Tensor1D>(), positions = next<tf.Tensor1D>(), wanted = picks ? next<tf.Tensor1D>() : null;
  const buckets = rectangles.map((rectangular): BucketInputs => ({
    positions: rectangles.length > 1 ? next<tf.Tensor1D>() : positions,
    rectangle: rectangular
      ? { tokens: next<tf.Tensor2D>(), rows: next<tf.Tensor1D>(), columns: next<tf.Tensor1D>() }
      : null,
    slots: next<tf.Tensor1D>(),
    rowStarts: several<tf.Tensor2D>(groups),
    caches: Array.from({ length: groups }, () => several(caches)),
  }));
  return { tokens, positions, wanted, buckets };
}
