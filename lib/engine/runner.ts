/** Runs the steps of a model: captures each kind of step when it first occurs, and replays it from then on. */

import * as tf from "@tensorflow/tfjs";
import { onBackend } from "../backend/current.ts";
import type { CapturedStep, Parallelism } from "../backend/types.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { StepContext } from "../gpt2/step_context.ts";
import type { KvCache, Lane } from "./kv_cache.ts";
import {
  type Feed,
  inputsOf,
  layoutOf,
  type StepLayout,
  type StepNumbers,
  stepNumbers,
  toTensors,
} from "./step_inputs.ts";

/** How rows are best spread over the processor, by the batch sizes at which it was measured. */
export type Plan = readonly (Parallelism & { batchSize: number })[];

/** What a step chose. */
export interface NextTokens {
  /** For each feed in order, and in it for what is wanted: the most likely next token. */
  ids: number[];
  /** Likewise the natural logarithm of its probability, if asked for. */
  logprobs?: number[];
}

/** How a step is done. */
export interface StepOptions {
  /** Also compute log-probabilities: a pass over all M × V logits. */
  logprobs?: boolean;
}

/** What distinguishes captured steps: the tensors that go in, those that come out, and kernels that depend on the size. */
interface StepKind extends StepLayout {
  readonly size: string | undefined;
  readonly outputs: Outputs;
}

type Outputs = "ids" | "ids and logprobs" | "logits";

/** Runs steps of one model, whose weights its captured steps use. */
export class Runner {
  static readonly #runners = new WeakMap<GPT2, Runner>();
  readonly #kinds: { kind: StepKind; step: CapturedStep }[] = [];
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

  /** Feeds rows of `cache`, and chooses the next token after each that is wanted. The lanes of the cache run side by side. */
  async step(cache: KvCache, feeds: readonly Feed[], options: StepOptions = {}): Promise<NextTokens> {
    const [ids, logprobs] = await this.#step(cache, feeds, options.logprobs ? "ids and logprobs" : "ids");
    const numbers = (of: Results) => of.flatMap((feed) => feed.map(([value]) => value));
    return { ids: numbers(ids), ...logprobs && { logprobs: numbers(logprobs) } };
  }

  /** The same, but what comes back are the logits after each that is wanted: V numbers. */
  async logits(cache: KvCache, feeds: readonly Feed[]): Promise<Float32Array[]> {
    const [logits] = await this.#step(cache, feeds, "logits");
    return logits.flat() as Float32Array[];
  }

  /** A step of one lane that feeds rows one token each, as a function of tensors: for those who want to look into it. */
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

  /** By output. */
  async #step(cache: KvCache, feeds: readonly Feed[], outputs: Outputs): Promise<Results[]> {
    using _ = this.model.lifetime.use();
    return await cache.exclusively(async () => {
      cache.reserve(feeds.map(({ row }) => row), feeds.map(({ tokens }) => tokens.length));
      const results: Results[] = [];
      const laneStep = (lane: Lane) => this.#laneStep(lane, cache.parallelism, feeds, outputs, results);
      await Promise.all(onBackend(this.model.backend, () => cache.lanes.map(laneStep)));
      for (const { row, tokens } of feeds) row.length += tokens.length;
      return results;
    });
  }

  /** Adds what comes out for the rows of one lane to `results`. */
  async #laneStep(
    { buckets }: Lane,
    parallelism: Parallelism,
    feeds: readonly Feed[],
    outputs: Outputs,
    results: Results[],
  ): Promise<void> {
    const { backend } = this.model, mine = [...feeds.keys()].filter((i) => buckets.includes(feeds[i].row.bucket));
    if (mine.length === 0) return;
    const numbers = stepNumbers(mine.map((i) => feeds[i]), backend.sizeFor), { all, own } = toTensors(numbers);
    try {
      const layout = layoutOf(numbers);
      const tensors = backend.capture
        ? await this.#captured(numbers, all, outputs).run(all, parallelism)
        : tf.tidy(() => this.#build(all, layout, outputs));
      const written = tensors.splice(outputs === "ids and logprobs" ? 2 : 1) as tf.Tensor4D[];
      const half = written.length / numbers.parts.length / 2;
      for (const { bucket } of half ? numbers.parts : []) {
        bucket.adopt({ keys: written.splice(0, half), values: written.splice(0, half) });
      }
      const data = await Promise.all(tensors.map((tensor) => tensor.data<"float32">()));
      tf.dispose(tensors);
      for (const [k, values] of data.entries()) {
        results[k] ??= feeds.map(() => []);
        const each = values.length / numbers.feedOf.length;
        numbers.feedOf.forEach((feed, i) => {
          if (feed >= 0) results[k][mine[feed]].push(values.slice(i * each, (i + 1) * each));
        });
      }
    } finally {
      tf.dispose(own);
    }
  }

  /**
   * The model on N tokens, and what comes out: ids [M], ids and log-probabilities [M], or logits [M, V]; then, where the
   * backend does not write in place, each bucket's keys and values.
   */
  #build(tensors: readonly tf.Tensor[], layout: StepLayout, outputs: Outputs): tf.Tensor[] {
    const { backend: { ops }, headGroups, config: { n_layer } } = this.model;
    const inputs = inputsOf(tensors, layout, { groups: headGroups.length, layers: n_layer });
    const step = new StepContext(ops, inputs),
      written = () => step.written.flatMap(({ keys, values }) => [...keys, ...values]);
    try {
      const logits = this.model.forward(step); // [M, V]
      if (outputs === "logits") return [ops.joinColumns(logits), ...written()];
      const ids = ops.argMax(logits);
      return outputs === "ids" ? [ids, ...written()] : [ids, ops.maxLogprob(logits), ...written()];
    } catch (error) {
      tf.dispose(written()); // they are kept
      throw error;
    }
  }

  #captured(numbers: StepNumbers, inputs: readonly tf.Tensor[], outputs: Outputs): CapturedStep {
    const { backend } = this.model, layout = layoutOf(numbers), size = backend.sizeClass?.(numbers.tokens.length);
    const kind: StepKind = { ...layout, size, outputs };
    let known = this.#kinds.find((other) => sameKind(other.kind, kind));
    if (!known) {
      const repeated = !layout.rectangles.includes(true);
      const step = backend.capture!(inputs, (standIns) => this.#build(standIns, layout, outputs), { repeated });
      this.#kinds.push(known = { kind, step });
    }
    return known.step;
  }

  /** Frees the captured steps. */
  dispose(): void {
    for (const { step } of this.#kinds.splice(0)) step.dispose();
  }
}

/** For each feed what is wanted of it: a few numbers each. */
type Results = Float32Array[][];

function sameKind(a: StepKind, b: StepKind): boolean {
  return a.size === b.size && a.outputs === b.outputs && a.picks === b.picks &&
    a.rectangles.length === b.rectangles.length && a.rectangles.every((rectangle, i) => rectangle === b.rectangles[i]);
}
