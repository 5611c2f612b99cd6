/**
 * Steps that follow each other on the device: each is fed what the one before chose, and the host reads all of it at the end.
 *
 * What changes from step to step are variables, like the caches. So every step has the same tensors at the same addresses:
 * XLA's programs run as graphs of kernels, in which they would have to change what lies elsewhere.
 */

import * as tf from "@tensorflow/tfjs";
import { attr, DataType } from "./capi/attributes.ts";
import { onBackend } from "../backend/current.ts";
import { type Captured, TENSORFLOW, type TensorflowBackend } from "./tfjs/backend.ts";
import { variables } from "./variables.ts";

/** The most steps between two looks of the host. */
const LONGEST = 32;

/** What changes, as float32: a GPU's variables hold no int32, and every token and position is exact in it. */
interface State {
  /** Of the inputs that are fed: the tokens, and what moves on by 1. */
  fed: tf.Tensor[];
  /** [LONGEST, N]: what each step chose. */
  chosen: tf.Tensor;
  /** How many have. */
  done: tf.Tensor;
}

/** A step that was captured to follow itself. */
export class CapturedChain {
  readonly #variables;
  #captured?: Captured;
  /** Those that no chain is using now, by their shapes. */
  readonly #states = new Map<string, State[]>();

  /** `build` makes the ids [N] that a step chooses, of its inputs. */
  constructor(
    private readonly backend: TensorflowBackend,
    private readonly build: (inputs: tf.Tensor[]) => tf.Tensor[],
  ) {
    this.#variables = variables(backend);
  }

  /** Runs it `count` times; its ids become input 0, and inputs `moving` grow by 1. Gives the ids of each run. */
  async run(inputs: readonly tf.Tensor[], moving: readonly number[], count: number): Promise<ArrayLike<number>[]> {
    const places = [0, ...moving], first = places.map((i) => inputs[i]), [{ size }] = first;
    const key = first.map(({ shape }) => shape.join("x")).join(), free = this.#states.get(key) ?? [];
    this.#states.set(key, free);
    const state = free.pop() ?? this.#newState(first), ids: ArrayLike<number>[] = [];
    try {
      this.#set(state.fed, () => first.map((x) => tf.cast(x, "float32")));
      const all = [...inputs, state.chosen, state.done];
      places.forEach((place, i) => all[place] = state.fed[i]);
      this.#captured ??= this.backend.capture(all, (standIns) => this.#step(standIns, places));
      while (ids.length < count) {
        this.#set([state.done], () => [tf.scalar(0)]);
        const steps = Math.min(LONGEST, count - ids.length);
        for (let i = 0; i < steps; i++) await this.#captured.run(all, { compiled: true });
        const chosen = onBackend(TENSORFLOW, () => this.#variables.read(state.chosen)), values = await chosen.data();
        chosen.dispose();
        for (let i = 0; i < steps; i++) ids.push(values.subarray(i * size, (i + 1) * size));
      }
      return ids;
    } finally {
      free.push(state);
    }
  }

  /** Frees the function, and what changes. */
  dispose(): void {
    this.#captured?.dispose();
    for (const { fed, chosen, done } of [...this.#states.values()].flat()) tf.dispose([...fed, chosen, done]);
    this.#states.clear();
  }

  /** A step between reading what changes and writing it. */
  #step(standIns: readonly tf.Tensor[], places: readonly number[]): tf.Tensor[] {
    const { read, assign } = this.#variables;
    const inputs = standIns.slice(0, -2), [chosen, done] = standIns.slice(-2);
    const before = places.map((place) => tf.cast(read(inputs[place]), "int32"));
    const [ids] = this.build(inputs.map((input, i) => before[places.indexOf(i)] ?? input));
    const next = [ids, ...before.slice(1).map((x) => tf.add(x, tf.scalar(1, "int32")))];
    places.forEach((place, i) => assign(inputs[place], tf.cast(next[i], "float32")));
    const count = read(done), row = tf.reshape(tf.cast(count, "int32"), [1, 1]);
    const attributes = [attr.type("T", DataType.float), attr.type("Tindices", DataType.int32)];
    const update = [read(chosen), row, tf.reshape(tf.cast(ids, "float32"), [1, -1])];
    assign(chosen, this.backend.execute("TensorScatterUpdate", attributes, update)[0]);
    assign(done, tf.add(count, tf.scalar(1)));
    return [];
  }

  #newState(fed: readonly tf.Tensor[]): State {
    return onBackend(TENSORFLOW, () =>
      tf.tidy(() => {
        const { create } = this.#variables, zeros = (...shape: number[]) => create(tf.zeros(shape));
        return {
          fed: fed.map(({ shape }) => zeros(...shape)),
          chosen: zeros(LONGEST, fed[0].size),
          done: zeros(),
        };
      }));
  }

  #set(changing: readonly tf.Tensor[], values: () => tf.Tensor[]): void {
    const { assign } = this.#variables;
    onBackend(TENSORFLOW, () => tf.tidy(() => values().forEach((value, i) => assign(changing[i], value))));
  }
}
