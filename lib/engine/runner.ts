/** Runs the steps of a model: captures each kind of step when it first occurs, and replays it from then on. */

import * as tf from "@tensorflow/tfjs";
import { onBackend } from "../backend/current.ts";
import { fromTensors, logprobs, sample, toTensors as sampledTensors } from "../backend/sampling.ts";
import type { CapturedStep, Parallelism } from "../backend/types.ts";
import { parameterCount } from "../gpt2/config.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { StepContext } from "../gpt2/step_context.ts";
import type { KvCache, Lane } from "./kv_cache.ts";
import { samplerTensors, settledIds } from "./sampler.ts";
import { GREEDY, type SampledRow } from "./sampled_row.ts";
import {
  type Feed,
  inputsOf,
  layoutOf,
  type ModelSizes,
  positionsIn,
  type StepLayout,
  type StepNumbers,
  stepNumbers,
  stepsOf,
  toTensors,
} from "./step_inputs.ts";

/** How rows are best spread over the processor, by the batch sizes at which it was measured. */
export type Plan = readonly (Parallelism & { batchSize: number })[];

/** A token that was chosen, or given. */
export interface NextToken {
  /** The token. */
  id: number;
  /** The natural logarithm of its probability, before temperature, penalties and filters; if asked for. */
  logprob?: number;
  /** The most likely tokens, the likeliest first, if asked for. */
  top?: { id: number; logprob: number }[];
}

/** How a step is done. */
export interface StepOptions {
  /** Also compute log-probabilities of the chosen tokens: a pass over all M × V logits. */
  logprobs?: boolean;
  /** The same, and also so many of the most likely tokens with theirs. Default 0. */
  topLogprobs?: number;
}

/** Where a captured step ends: at the most likely tokens, at these and their log-probabilities, or at the logits. */
type End = "ids" | "ids and logprobs" | "logits";

/** What distinguishes captured steps: the tensors that go in and come out, and kernels that depend on the size. */
interface StepKind extends StepLayout {
  readonly size: string | undefined;
  readonly end: End;
}

/**
 * Runs steps of one model, whose weights its captured steps use: rows of a cache go in with the tokens that they are fed, and
 * each gets its next one.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { AutoModelForCausalLM, AutoTokenizer, KvCache, Runner } from "../mod.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * const prompts = ["Call me", "It is a truth universally"].map((text) => tokenizer.encode(text));
 * using cache = new KvCache(model);
 * const rows = cache.admit({ slots: prompts.map(({ length }) => length) });
 * const next = await Runner.of(model).step(cache, rows.map((row, i) => ({ row, tokens: prompts[i] })));
 * assert.deepEqual(cache.lengths, prompts.map(({ length }) => length));
 * console.log(next.map(({ id }) => tokenizer.decode([id])));
 * ```
 */
export class Runner {
  static readonly #runners = new WeakMap<GPT2, Runner>();
  readonly #kinds: { kind: StepKind; step: CapturedStep }[] = [];
  readonly #samplers = new Map<string, CapturedStep>();
  /** How batches are best spread over the processor; see parallelism.ts. Empty: by a guess. */
  plan: Plan = [];

  private constructor(private readonly model: GPT2) {}

  /** The runner of a model. It ends with the model: throws if that was disposed of. */
  static of(model: GPT2): Runner {
    using _ = model.lifetime.use();
    let runner = Runner.#runners.get(model);
    if (!runner) {
      Runner.#runners.set(model, runner = new Runner(model));
      model.own(runner);
    }
    return runner;
  }

  /** How many kinds of step were captured. */
  get captures(): number {
    return this.#kinds.length;
  }

  /**
   * Feeds rows of `cache`, and gives for each feed, in order, the next tokens that are wanted of it. The lanes of the cache run
   * side by side. If it throws, the rows are as they were.
   */
  async step(cache: KvCache, feeds: readonly Feed[], options: StepOptions = {}): Promise<NextToken[]> {
    const next = feeds.map((): NextToken[] => []);
    await this.#lanes(cache, feeds, async (numbers, mine) => {
      const chosen = await this.#choose(numbers, cache.parallelism, options);
      numbers.choices.forEach(({ feed }, i) => feed >= 0 && next[mine[feed]].push(chosen[i]));
    });
    return next.flat();
  }

  /**
   * Feeds every row of `cache` a token, and then `count` − 1 times their most likely next one, on a backend that runs ahead: each
   * is on its way before the host knows what came of the first. Gives the tokens that came next, for each step one for each feed.
   * If it throws, the rows are as they were; a RangeError says that not every row is fed one token.
   */
  async greedySteps(cache: KvCache, feeds: readonly Feed[], count: number): Promise<NextToken[][]> {
    if (feeds.length !== cache.rows.length || feeds.some(({ tokens }) => tokens.length !== 1)) {
      throw new RangeError(`Cannot chain steps unless each of the cache's ${cache.rows.length} rows is fed one token.`);
    }
    const next = Array.from({ length: count }, () => feeds.map((): NextToken => ({ id: 0 })));
    await this.#lanes(cache, feeds, async (numbers, mine) => {
      for (const [i, ids] of (await this.#chain(numbers, count, cache.parallelism)).entries()) {
        numbers.choices.forEach(({ feed }, row) => feed >= 0 && (next[i][mine[feed]] = { id: ids[row] }));
      }
    }, count - 1);
    return next;
  }

  /** The same, but what comes back are the logits after each token that something is wanted after: V numbers. */
  async logits(cache: KvCache, feeds: readonly Feed[]): Promise<Float32Array[]> {
    const results = feeds.map((): Float32Array[] => []);
    await this.#lanes(cache, feeds, async (numbers, mine) => {
      const parts = await this.#run(numbers, "logits", cache.parallelism);
      const values = await Promise.all(parts.map((part) => part.data<"float32">()));
      numbers.choices.forEach(({ feed }, row) => {
        if (feed < 0) return;
        const logits = new Float32Array(this.model.config.vocab_size);
        let first = 0;
        for (const [p, { shape: [, width = 0] }] of parts.entries()) {
          logits.set(values[p].subarray(row * width, (row + 1) * width), first);
          first += width;
        }
        results[mine[feed]].push(logits);
      });
      tf.dispose(parts);
    });
    return results.flat();
  }

  /** A step that feeds rows of one lane, as a function of tensors: for those who want to look into it. */
  stepFunction(feeds: readonly Feed[]): {
    inputs: tf.Tensor[];
    build: (standIns: readonly tf.Tensor[]) => tf.Tensor[];
    dispose: () => void;
  } {
    const use = this.model.lifetime.use(), numbers = stepNumbers(feeds), { all, own } = toTensors(numbers);
    const build = (standIns: readonly tf.Tensor[]) => this.#build(standIns, layoutOf(numbers), "ids");
    const dispose = () => {
      tf.dispose(own);
      use[Symbol.dispose]();
    };
    return { inputs: all, build, dispose };
  }

  /**
   * Has `work` done for the feeds of each lane, a step after the other if it takes several; `mine` are their places among all
   * feeds. It adds `later` tokens to each row besides those that it is fed.
   */
  async #lanes(
    cache: KvCache,
    feeds: readonly Feed[],
    work: (numbers: StepNumbers, mine: readonly number[]) => Promise<void>,
    later = 0,
  ): Promise<void> {
    using _ = this.model.lifetime.use();
    const { backend } = this.model;
    await cache.exclusively(async () => {
      cache.reserve(feeds.map(({ row }) => row), feeds.map(({ tokens }) => tokens.length + later));
      const laneSteps = async ({ buckets }: Lane) => {
        const mine = [...feeds.keys()].filter((i) => buckets.includes(feeds[i].row.bucket));
        if (!mine.length) return;
        const own = mine.map((i) => feeds[i]);
        for (const members of stepsOf(own, cache, backend.stepBuckets)) {
          await work(onBackend(backend, () => stepNumbers(own, members, backend.sizeFor)), mine);
        }
      };
      await Promise.all(cache.lanes.map(laneSteps));
      for (const { row, tokens } of feeds) row.length += tokens.length + later;
    });
  }

  /** A step that feeds each row one token, and `count` − 1 more that are fed what came of the one before: the ids, by step. */
  async #chain(numbers: StepNumbers, count: number, parallelism: Parallelism): Promise<ArrayLike<number>[]> {
    const { backend } = this.model;
    const { all, own } = onBackend(backend, () => toTensors(numbers)), layout = layoutOf(numbers);
    try {
      const step = this.#captured(numbers, layout, all, "ids");
      return await step.chain!(all, positionsIn(all, layout, this.#sizes), count, parallelism);
    } finally {
      tf.dispose(own);
    }
  }

  /** The next token for each of the M that are wanted. */
  async #choose(
    numbers: StepNumbers,
    parallelism: Parallelism,
    { logprobs = false, topLogprobs = 0 }: StepOptions,
  ): Promise<NextToken[]> {
    const { choices } = numbers, greedy = choices.every(({ next }) => next === undefined || isGreedy(next));
    const largest = greedy && topLogprobs === 0, { parts: [part, ...more] } = numbers;
    // Where capturing takes long, greedy and sampled requests share all steps but the most frequent: those end at the logits.
    if (largest && (!this.model.backend.stepBuckets || !more.length && !part.rectangle)) {
      return await largestOf(await this.#run(numbers, logprobs ? "ids and logprobs" : "ids", parallelism));
    }
    const logits = await this.#run(numbers, "logits", parallelism) as tf.Tensor2D[];
    try {
      if (largest) return await largestOf(await this.#largest(logits, logprobs, parallelism));
      const rows = choices.map(({ next }) => next === undefined || typeof next === "number" ? GREEDY : next);
      const sampled = choices.some(({ next }) => typeof next !== "number")
        ? await this.#sample(logits, rows, parallelism)
        : [];
      const ids = choices.map(({ next }, i) => typeof next === "number" ? next : sampled[i]);
      if (!logprobs && topLogprobs === 0) return ids.map((id) => ({ id }));
      return await this.#withLogprobs(logits, ids, topLogprobs, parallelism);
    } finally {
      tf.dispose(logits);
    }
  }

  async #largest(logits: tf.Tensor2D[], logprobs: boolean, parallelism: Parallelism): Promise<tf.Tensor[]> {
    const { ops } = this.model.backend, name = logprobs ? "largest, with log-probabilities" : "largest";
    const build = (parts: tf.Tensor[]) => {
      const logits = parts as tf.Tensor2D[];
      return logprobs ? [ops.argMax(logits), ops.maxLogprob(logits)] : [ops.argMax(logits)];
    };
    return await this.#compute(name, logits, build, parallelism);
  }

  async #sample(logits: tf.Tensor2D[], rows: readonly SampledRow[], parallelism: Parallelism): Promise<number[]> {
    const { sampling } = this.model.backend.ops, P = logits.length;
    const { settings, edits } = onBackend(this.model.backend, () => samplerTensors(rows));
    const build = (inputs: tf.Tensor[]) => {
      const [settings, edits] = inputs.slice(P) as tf.Tensor2D[];
      return sampledTensors(sample(sampling, inputs.slice(0, P) as tf.Tensor2D[], { settings, edits }));
    };
    const outputs = await this.#compute("sample", [...logits, settings, edits], build, parallelism);
    try {
      const widths = logits.map(({ shape }) => shape[1]);
      return await onBackend(this.model.backend, () => settledIds(fromTensors(outputs), rows, widths));
    } finally {
      tf.dispose([...outputs, settings, edits]);
    }
  }

  async #withLogprobs(logits: tf.Tensor2D[], ids: number[], top: number, spread: Parallelism): Promise<NextToken[]> {
    const { backend } = this.model, P = logits.length;
    const chosen = onBackend(backend, () => tf.tensor1d(ids, "int32"));
    const build = (inputs: tf.Tensor[]) => {
      const parts = inputs.slice(0, P) as tf.Tensor2D[], ids = inputs[P] as tf.Tensor1D;
      const found = logprobs(backend.ops.sampling, parts, ids, { top });
      return top ? [found.chosen, found.topIds!, found.top!] : [found.chosen];
    };
    const outputs = await this.#compute(`log-probabilities, ${top}`, [...logits, chosen], build, spread);
    const [own, topIds, topValues] = await Promise.all(outputs.map((output) => output.data()));
    tf.dispose([...outputs, chosen]);
    const each = top ? topIds.length / ids.length : 0;
    return ids.map((id, i) => {
      const best = Array.from(
        { length: each },
        (_, k) => ({ id: topIds[i * each + k], logprob: topValues[i * each + k] }),
      );
      return { id, logprob: own[i], ...top && { top: best } };
    });
  }

  /** Runs what follows the logits: captured where the backend captures any operation, else one by one. */
  async #compute(
    name: string,
    inputs: tf.Tensor[],
    build: (inputs: tf.Tensor[]) => tf.Tensor[],
    parallelism: Parallelism,
  ): Promise<tf.Tensor[]> {
    const { backend } = this.model;
    if (!backend.capture || !backend.capturesAll) return onBackend(backend, () => tf.tidy(() => build(inputs)));
    let captured = this.#samplers.get(name);
    if (!captured) {
      captured = onBackend(backend, () => backend.capture!(inputs, build, { repeated: true }));
      this.#samplers.set(name, captured);
    }
    return await captured.run(inputs, parallelism);
  }

  /** Runs a step of rows of one lane, and gives what it ends with. */
  async #run(numbers: StepNumbers, end: End, parallelism: Parallelism): Promise<tf.Tensor[]> {
    const { backend } = this.model, { groups, caches } = this.#sizes;
    const [{ all, own }, layout] = [onBackend(backend, () => toTensors(numbers)), layoutOf(numbers)];
    try {
      const tensors = backend.capture
        ? await this.#captured(numbers, layout, all, end).run(all, parallelism)
        : onBackend(backend, () => tf.tidy(() => this.#build(all, layout, end)));
      if (backend.ops.writesInPlace) return tensors;
      for (const { bucket } of numbers.parts) {
        bucket.adopt(Array.from({ length: groups }, () => tensors.splice(0, caches) as tf.Tensor4D[]));
      }
      return tensors;
    } finally {
      tf.dispose(own);
    }
  }

  /**
   * The model on N tokens, and what comes out: where the backend does not write in place, each bucket's caches; then
   * ids [M], ids and log-probabilities [M], or logits [M, V] in parts.
   */
  #build(tensors: readonly tf.Tensor[], layout: StepLayout, end: End): tf.Tensor[] {
    const { backend: { ops }, dtype, config } = this.model, weights = { dtype, modelSize: parameterCount(config) };
    const step = new StepContext(ops, inputsOf(tensors, layout, this.#sizes), weights);
    const written = () => step.written.flat(2);
    try {
      const logits = this.model.forward(step); // [M, V]
      if (end === "logits") return [...written(), ...logits];
      const ids = ops.argMax(logits);
      return end === "ids" ? [...written(), ids] : [...written(), ids, ops.maxLogprob(logits)];
    } catch (error) {
      tf.dispose(written()); // they are kept
      throw error;
    }
  }

  get #sizes(): ModelSizes {
    const { backend: { ops }, config: { n_layer }, headGroups } = this.model;
    return { groups: headGroups.length, caches: ops.cacheTensors(n_layer) };
  }

  #captured(numbers: StepNumbers, layout: StepLayout, inputs: readonly tf.Tensor[], end: End): CapturedStep {
    const { backend, dtype } = this.model;
    const size = backend.sizeClass?.(numbers.tokens.length, numbers.choices.length, dtype);
    const kind: StepKind = { ...layout, size, end };
    let known = this.#kinds.find((other) => sameKind(other.kind, kind));
    if (!known) {
      const repeated = !layout.rectangles.includes(true), build = (all: tf.Tensor[]) => this.#build(all, layout, end);
      const step = onBackend(backend, () => backend.capture!(inputs, build, { repeated }));
      this.#kinds.push(known = { kind, step });
    }
    return known.step;
  }

  /** Frees the captured steps. */
  dispose(): void {
    for (const { step } of this.#kinds.splice(0)) step.dispose();
    for (const step of this.#samplers.values()) step.dispose();
    this.#samplers.clear();
  }
}

/** The most likely tokens, of ids [M] and, if asked for, log-probabilities [M], which it frees. */
async function largestOf(outputs: tf.Tensor[]): Promise<NextToken[]> {
  const [ids, values] = await Promise.all(outputs.map((output) => output.data()));
  tf.dispose(outputs);
  return Array.from(ids, (id, i) => ({ id, ...values && { logprob: values[i] } }));
}

/** Whether the most likely token is taken, as the model has it. */
function isGreedy(next: SampledRow | number): boolean {
  return typeof next !== "number" && next.takesLargest;
}

function sameKind(a: StepKind, b: StepKind): boolean {
  return a.size === b.size && a.end === b.end && a.picks === b.picks &&
    a.rectangles.length === b.rectangles.length && a.rectangles.every((rectangle, i) => rectangle === b.rectangles[i]);
}
