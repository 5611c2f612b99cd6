/** What the sampler must know of a row besides its logits: its settings, what was said so far, and its next random number. */

import { isGreedy, type SamplingSettings, samplingSettings } from "./sampling.ts";
import { uniformOf } from "./uniform.ts";

/** What a logit gets that must not win. Finite, because not every GPU has infinities; bias and penalties cannot lift it. */
export const BANNED = -1e30;

/** Numbers of an edit: row, token, and then x + add, divided by or times the repetition penalty, minus the last. */
export const EDIT = { row: 0, token: 1, add: 2, repetition: 3, subtract: 4, size: 5 } as const;

/** What a row brings along. */
export interface RowText {
  /** The tokens of the prompt. */
  prompt: readonly number[];
  /** Which of the answers to the prompt it is, from 0. Default: 0. */
  choice?: number;
  /** Tokens that would end the answer: they are banned until it has `minTokens`. Default: none. */
  endIds?: readonly number[];
}

/** A row that is being sampled. A new token costs the edits of that token, however long the text is. */
export class SampledRow {
  readonly #choice: number;
  readonly #endIds: readonly number[];
  /** Where a token's edit is, by token. */
  readonly #places = new Map<number, number>();
  /** How often the answer has a token, by place. */
  #counts: number[] = [];
  #edits = new Float32Array(8 * EDIT.size);
  #length = 0;

  /** Nothing is generated yet. */
  constructor(readonly settings: SamplingSettings, { prompt, choice = 0, endIds = [] }: RowText) {
    this.#choice = choice;
    this.#endIds = endIds;
    for (const [id, bias] of Object.entries(settings.logitBias)) this.#set(Number(id), EDIT.add, bias);
    if (settings.minTokens > 0) { for (const id of endIds) this.#set(id, EDIT.add, BANNED); }
    if (settings.repetitionPenalty !== 1) {
      for (const id of prompt) this.#set(id, EDIT.repetition, settings.repetitionPenalty);
    }
  }

  /** How many tokens the answer has. */
  get length(): number {
    return this.#length;
  }

  /** True when the next token is the one with the largest logit, as it comes from the model. */
  get takesLargest(): boolean {
    return isGreedy(this.settings) && this.#places.size === 0;
  }

  /** How many logits are changed. */
  get editCount(): number {
    return this.#places.size;
  }

  /** [editCount, 5]: see {@link EDIT}. The rows are not set. */
  get edits(): Float32Array {
    return this.#edits.subarray(0, this.editCount * EDIT.size);
  }

  /** The random number of the next token. */
  get uniform(): number {
    return uniformOf(this.settings.seed, this.#choice, this.#length);
  }

  /** Goes on after a token. */
  add(token: number): void {
    const { repetitionPenalty, presencePenalty, frequencyPenalty, minTokens, logitBias } = this.settings;
    if (repetitionPenalty !== 1) this.#set(token, EDIT.repetition, repetitionPenalty);
    if (presencePenalty !== 0 || frequencyPenalty !== 0) {
      const place = this.#placeOf(token), count = ++this.#counts[place];
      this.#set(token, EDIT.subtract, presencePenalty + frequencyPenalty * count);
    }
    if (++this.#length === minTokens) { for (const id of this.#endIds) this.#set(id, EDIT.add, logitBias[id] ?? 0); }
  }

  #set(token: number, what: number, value: number): void {
    const place = this.#placeOf(token);
    this.#edits[place * EDIT.size + what] = value;
  }

  #placeOf(token: number): number {
    let place = this.#places.get(token);
    if (place !== undefined) return place;
    this.#places.set(token, place = this.#places.size);
    this.#counts.push(0);
    const at = place * EDIT.size;
    if (at + EDIT.size > this.#edits.length) {
      const larger = new Float32Array(2 * this.#edits.length);
      larger.set(this.#edits);
      this.#edits = larger;
    }
    this.#edits[at + EDIT.token] = token;
    this.#edits[at + EDIT.repetition] = 1;
    return place;
  }
}

/** A row that takes the most likely token, as the model has it. */
export const GREEDY: SampledRow = new SampledRow(samplingSettings({ seed: 0 }, { vocabSize: 0 }), { prompt: [] });
