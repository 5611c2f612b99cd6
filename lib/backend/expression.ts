/**
 * A step as a graph of what is to be computed: recorded by running the model's ordinary code on stand-ins, tensors that have
 * a shape and no values.
 */

import * as tf from "@tensorflow/tfjs";
import { tidyName } from "./tidy_name.ts";

/** A bucket of the cache during the step, by the inputs that describe it. */
export interface Bucket {
  positions: number;
  rectangle: { rows: number; columns: number } | null;
  /** The one whose length is S. */
  slots: number;
  /** Where its keys and values are. */
  caches: readonly number[];
}

/**
 * What a stand-in stands for: the operations of ops.ts, by the same names. Inputs of the step go by their number; `W` is how the
 * backend keeps the weight of a linear layer.
 */
export type Expression<W> =
  | { op: "input"; input: number }
  | { op: "embed"; table: tf.Tensor2D; ids: number }
  | { op: "add"; a: Expression<W>; b: Expression<W> }
  | { op: "layerNorm"; x: Expression<W>; gain: tf.Tensor1D; bias: tf.Tensor1D; epsilon: number }
  | { op: "linear"; x: Expression<W>; weight: W; bias: tf.Tensor1D | null; gelu: boolean }
  | { op: "tokensOf"; x: Expression<W>; bucket: Bucket }
  | { op: "attend"; qkv: Expression<W>; bucket: Bucket; heads: number; size: number; layer: number }
  | { op: "join"; parts: readonly Expression<W>[] }
  | { op: "pick"; x: Expression<W>; rows: number }
  | { op: "argMax"; logits: Expression<W> }
  | { op: "maxLogprob"; logits: Expression<W> };

/** What an expression is computed from. */
export function partsOf<W>(expression: Expression<W>): Expression<W>[] {
  if (expression.op === "join") return [...expression.parts];
  return Object.values(expression).filter((part): part is Expression<W> =>
    typeof part === "object" && part !== null && "op" in part
  );
}

/** Makes stand-ins and knows what they stand for. */
export class Recorder<W> {
  readonly #expressions = new WeakMap<object, Expression<W>>();
  readonly #places = new WeakMap<Expression<W>, string>();

  /** Runs `build` on stand-ins for `inputs` and returns what its results stand for. */
  record(inputs: readonly tf.Tensor[], build: (standIns: tf.Tensor[]) => tf.Tensor[]): Expression<W>[] {
    const kept: tf.Tensor[] = [];
    try {
      kept.push(...inputs.map(({ shape, dtype }, input) => this.standIn({ op: "input", input }, shape, dtype)));
      const outputs = tf.tidy(() => build(kept));
      kept.push(...outputs);
      return outputs.map((output) => this.expressionOf(output));
    } finally {
      tf.dispose(kept);
    }
  }

  /** A tensor that stands for an expression. */
  standIn<T extends tf.Tensor>(expression: Expression<W>, shape: number[], dtype: tf.DataType = "float32"): T {
    const dataId = {}; // the backend does not know it, so there is nothing to free
    this.#expressions.set(dataId, expression);
    this.#places.set(expression, tidyName());
    return tf.engine().makeTensorFromDataId(dataId, shape, dtype) as T;
  }

  /** What a stand-in stands for. Throws if the tensor is none: its values would be those of this one step. */
  expressionOf(tensor: tf.Tensor): Expression<W> {
    const expression = this.#expressions.get(tensor.dataId);
    if (expression) return expression;
    throw new Error(
      "Cannot capture a step that mixes its inputs with the values of other tensors, or leaves the operations of Ops.",
    );
  }

  /** Where in the model an expression was made: `h.0/attn/`. */
  placeOf(expression: Expression<W>): string {
    return this.#places.get(expression) ?? "";
  }

  /** The number of the input that a stand-in stands for. */
  inputOf(tensor: tf.Tensor): number {
    const expression = this.expressionOf(tensor);
    if (expression.op === "input") return expression.input;
    throw new Error(`Cannot capture a step with ${expression.op} where only an input can be.`);
  }
}
