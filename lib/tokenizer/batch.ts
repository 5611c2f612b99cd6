/**
 * A batch of prompts as plain arrays: padding, masks, positions.
 *
 * Whether a token is real is said by the mask and by nothing else: in GPT-2 the padding token is the end-of-text token,
 * so ids cannot tell.
 */

/** Prompts as token ids, with a mask that tells real tokens (1) from padding (0). Rows may differ in length. */
export interface Batch {
  /** [B, T] */
  inputIds: number[][];
  /** [B, T] */
  attentionMask: number[][];
}

/** Where padding goes. On the left, the last column holds the last token of every row. */
export type PaddingSide = "left" | "right";

/**
 * Fills rows up to the length of the longest with `padTokenId`, on the left unless told otherwise.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { padBatch } from "./batch.ts";
 *
 * const batch = padBatch([[464, 2068, 7586], [12295]], { padTokenId: 50256 });
 * assert.deepEqual(batch.inputIds, [[464, 2068, 7586], [50256, 50256, 12295]]);
 * assert.deepEqual(batch.attentionMask, [[1, 1, 1], [0, 0, 1]]);
 * ```
 */
export function padBatch(
  rows: readonly (readonly number[])[],
  { padTokenId, side = "left" }: { padTokenId: number; side?: PaddingSide },
): Batch {
  if (side !== "left" && side !== "right") {
    throw new RangeError(`Cannot pad on side "${side}": use "left" or "right".`);
  }
  const length = longest(rows);
  const pad = (row: readonly number[], filler: number) => {
    const padding = Array<number>(length - row.length).fill(filler);
    return side === "left" ? [...padding, ...row] : [...row, ...padding];
  };
  return {
    inputIds: rows.map((row) => pad(row, padTokenId)),
    attentionMask: rows.map((row) => pad(row.map(() => 1), 0)),
  };
}

/**
 * The real tokens of each row, after checking the batch. Dropping padding changes nothing: no token attends to it and
 * positions skip it, whichever side it is on.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { realTokens } from "./batch.ts";
 *
 * const batch = { inputIds: [[5, 6, 7], [0, 0, 8]], attentionMask: [[1, 1, 1], [0, 0, 1]] };
 * assert.deepEqual(realTokens(batch, { vocabSize: 50257 }), [[5, 6, 7], [8]]);
 * ```
 */
export function realTokens({ inputIds, attentionMask }: Batch, { vocabSize }: { vocabSize: number }): number[][] {
  if (!Array.isArray(inputIds) || !Array.isArray(attentionMask)) {
    throw new TypeError("Cannot use this batch: it needs the arrays inputIds and attentionMask, one row a prompt.");
  }
  if (inputIds.length === 0) throw new RangeError("Cannot use a batch without rows: pass at least one prompt.");
  if (inputIds.length !== attentionMask.length) {
    throw new RangeError(
      `Cannot use this batch: inputIds has ${inputIds.length} rows and attentionMask has ${attentionMask.length}. ` +
        "Give every row its mask.",
    );
  }
  return inputIds.map((ids, row) => {
    const mask = attentionMask[row];
    checkRow(ids, mask, row, vocabSize);
    return ids.filter((_, i) => mask[i] === 1);
  });
}

/**
 * Each token's position among the real tokens of its row: cumulative sum of the mask, minus 1. [B, T] -> [B, T].
 * Padding on the left gets -1, as in the source; the look-up clamps it to 0.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { positionIds } from "./batch.ts";
 *
 * assert.deepEqual(positionIds([[1, 1, 1], [0, 0, 1]]), [[0, 1, 2], [-1, -1, 0]]);
 * ```
 */
export function positionIds(attentionMask: readonly (readonly number[])[]): number[][] {
  return attentionMask.map((mask) => {
    let position = -1;
    return mask.map((real) => position += real);
  });
}

/**
 * The share of the batch's rectangle, rows × longest row, that holds no real token: from 0 (none is wasted) towards 1.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { padBatch, paddingShare } from "./batch.ts";
 *
 * assert.equal(paddingShare(padBatch([[1, 2, 3, 4], [5, 6]], { padTokenId: 0 })), 0.25);
 * ```
 */
export function paddingShare({ attentionMask }: Batch): number {
  const rectangle = attentionMask.length * longest(attentionMask);
  const real = attentionMask.flat().reduce((sum, mask) => sum + mask, 0);
  return rectangle === 0 ? 0 : 1 - real / rectangle;
}

/** The length of the longest row, 0 if there is none. */
export function longest(rows: readonly (readonly number[])[]): number {
  return rows.reduce((length, row) => Math.max(length, row.length), 0);
}

function checkRow(ids: unknown, mask: unknown, row: number, vocabSize: number): void {
  if (!Array.isArray(ids) || !Array.isArray(mask)) {
    throw new TypeError(`Cannot use row ${row}: inputIds and attentionMask must hold an array of numbers for it.`);
  }
  if (ids.length !== mask.length) {
    throw new RangeError(
      `Cannot use row ${row}: inputIds has ${ids.length} tokens and attentionMask has ${mask.length}. ` +
        "Give every token a 1, or a 0 if it is padding.",
    );
  }
  for (let i = 0; i < ids.length; i++) {
    if (mask[i] !== 0 && mask[i] !== 1) {
      throw new RangeError(
        `Cannot use attentionMask[${row}][${i}]: it is ${mask[i]}. Use 1 for a token, 0 for padding.`,
      );
    }
    if (mask[i] === 1 && !(Number.isInteger(ids[i]) && ids[i] >= 0 && ids[i] < vocabSize)) {
      throw new RangeError(
        `Cannot use inputIds[${row}][${i}]: it is ${ids[i]}. Token ids are whole numbers from 0 to ${vocabSize - 1}.`,
      );
    }
  }
  if (!mask.includes(1)) {
    throw new RangeError(
      `Cannot use row ${row}: it has no real token, so nothing can follow it. For an empty prompt pass the end-of-text token.`,
    );
  }
}
