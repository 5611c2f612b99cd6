/**
 * From what is to be computed to the kernels that do it, in order. Each takes in as much of the graph as it can: layer norm,
 * linear layer, bias, GELU and the sum that follows are one kernel; splitting heads, writing the cache, attention and merging
 * heads another. A block of GPT-2 is five.
 */

import type * as tf from "@tensorflow/tfjs";
import { type Expression as Recorded, partsOf } from "../backend/expression.ts";
import { attentionKernel, MAX_HEAD_SIZE } from "./kernels/attention.ts";
import { chooseKernel, searchKernel, searchWords } from "./kernels/choose.ts";
import { embedKernel } from "./kernels/embed.ts";
import { linearKernel, sharesOf, sumKernel, takesNorm } from "./kernels/linear.ts";
import type { LinearKernelOptions } from "./kernels/linear_frame.ts";
import { normKernel } from "./kernels/norm.ts";
import type { Kernel } from "./kernels/wgsl.ts";
import type { Weight } from "./pack.ts";

type Expression = Recorded<Weight>;

/** What differs between the runs of a step: N and M, and how many of the tokens are in each bucket. */
export interface Sizes {
  tokens: number;
  wanted: number;
  buckets: readonly number[];
}

/** What a kernel is bound to: an input of the step, a weight or a part of one, or memory that steps use in between. */
export type Binding =
  | { input: number }
  | { weight: tf.Tensor; part?: { byteOffset: number; byteLength: number } }
  | { scratch: number };

/** One dispatch, or none for some sizes. The first binding, what changes from step to step, goes without saying. */
export interface Call {
  kernel(sizes: Sizes): Kernel | null;
  bindings: Binding[];
}

/** A result: where it lies after the last call. */
export interface Output {
  /** It is a choice, for the host to know; anything else stays on the GPU. */
  isChoice: boolean;
  scratch: number;
  dtype: "int32" | "float32";
  byteOffset(sizes: Sizes): number;
  shape(sizes: Sizes): number[];
}

/** How a step is computed. */
export interface KernelPlan {
  calls: Call[];
  /** For each piece of scratch memory, the bytes that it needs. */
  scratch: ((sizes: Sizes) => number)[];
  outputs: Output[];
  /** Inputs whose integers the kernels read; in {@link Call} they go by their place here plus 1: {@link BUCKETS} come first. */
  integers: number[];
  /** The inputs that say what N and M are; without the latter it is N. */
  tokens: number;
  wanted: number | null;
  /** For each bucket, in the order of their tokens, the inputs that say how many it has, and what S is. */
  buckets: { positions: number; keys: number }[];
}

/** The place among a step's arrays of what is known of the buckets: for each its first token, its tokens and its slots. */
export const BUCKETS = 0;

/** Bytes that one binding may have. */
export interface Limits {
  maxStorageBufferBindingSize: number;
}

/** Makes the plan. Throws an error for a graph that has no kernels. */
export function makePlan(outputs: readonly Expression[], limits: Limits): KernelPlan {
  return new Planner(outputs, limits).plan();
}

/** Where an expression's numbers are, and how they lie: [N, width] for all tokens, [M, width] for the wanted ones. */
interface Value {
  scratch: number;
  width: number;
  per: "token" | "wanted token";
}

const FLOAT = Float32Array.BYTES_PER_ELEMENT;

class Planner {
  readonly #calls: Call[] = [];
  readonly #scratch: ((sizes: Sizes) => number)[][] = [];
  readonly #free: number[] = [];
  readonly #values = new Map<Expression, Value>();
  /** How often an expression's value is still going to be read. */
  readonly #uses = new Map<Expression, number>();
  readonly #integers: number[] = [];
  readonly #buckets: { positions: number; keys: number }[] = [];
  #tokens?: number;
  #wanted: number | null = null;

  constructor(private readonly outputs: readonly Expression[], private readonly limits: Limits) {
    const count = (expression: Expression) => {
      const uses = this.#uses.get(expression) ?? 0;
      this.#uses.set(expression, uses + 1);
      if (uses === 0) partsOf(expression).forEach(count);
    };
    outputs.forEach(count);
  }

  plan(): KernelPlan {
    const outputs = this.outputs.map((output) => this.#output(output));
    if (this.#tokens === undefined || this.#buckets.length === 0) {
      throw new Error("Cannot capture a step that looks up no tokens or uses no cache.");
    }
    return {
      calls: this.#calls,
      scratch: this.#scratch.map((needs) => (sizes) => Math.max(...needs.map((bytes) => bytes(sizes)))),
      outputs,
      integers: this.#integers,
      tokens: this.#tokens,
      wanted: this.#wanted,
      buckets: this.#buckets,
    };
  }

  #output(expression: Expression): Output {
    if (expression.op === "argMax" || expression.op === "maxLogprob") {
      const isId = expression.op === "argMax";
      return {
        isChoice: true,
        scratch: this.#choose(expression.logits),
        dtype: isId ? "int32" : "float32",
        byteOffset: ({ wanted }) => isId ? 0 : FLOAT * wanted,
        shape: ({ wanted }) => [wanted],
      };
    }
    const { scratch, width, per } = this.#valueOf(expression);
    return {
      isChoice: false,
      scratch,
      dtype: "float32",
      byteOffset: () => 0,
      shape: (sizes) => [rowsOf(per, sizes), width],
    };
  }

  /** Where ids and log-probabilities of the rows' largest logits are. */
  #choose(logits: Expression): number {
    const known = this.#chosen.get(logits);
    if (known !== undefined) return known;
    const { scratch, width } = this.#valueOf(logits);
    const found = this.#acquire(({ wanted }) => wanted * searchWords(width) * FLOAT);
    const chosen = this.#acquire(({ wanted }) => 2 * wanted * FLOAT);
    const probabilities = this.outputs.some((output) => output.op === "maxLogprob" && output.logits === logits);
    this.#call(({ wanted }) => searchKernel(wanted, width, probabilities), [{ scratch }, { scratch: found }]);
    this.#call(({ wanted }) => chooseKernel(wanted, width), [{ scratch: found }, { scratch: chosen }]);
    this.#free.push(found);
    this.#chosen.set(logits, chosen);
    return chosen;
  }
  readonly #chosen = new Map<Expression, number>();

  /** Computes an expression, unless that was done before. */
  #valueOf(expression: Expression): Value {
    let value = this.#values.get(expression);
    if (!value) {
      value = this.#compute(expression);
      this.#values.set(expression, value);
    }
    return value;
  }

  #compute(expression: Expression): Value {
    switch (expression.op) {
      case "add":
        return this.#add(expression.a, expression.b);
      case "linear":
        return this.#linear(expression);
      case "layerNorm":
        return this.#layerNorm(expression);
      case "attend":
        return this.#attention([expression]);
      case "join":
        return this.#attention(expression.parts);
      default:
        throw noKernel(expression.op);
    }
  }

  #add(a: Expression, b: Expression): Value {
    if (a.op === "embed" && b.op === "embed") return this.#embed(a, b);
    if (b.op !== "linear" || this.#uses.get(b) !== 1) throw noKernel(`add of ${a.op} and ${b.op}`);
    const sum = this.#valueOf(a);
    return this.#linear(b, { expression: a, value: sum });
  }

  #embed(a: Expression & { op: "embed" }, b: Expression & { op: "embed" }): Value {
    const [rows, width] = a.table.shape, ids = [this.#integer(a.ids), this.#integer(b.ids)] as const;
    this.#tokens = a.ids;
    const scratch = this.#acquire((sizes) => FLOAT * rowsOf("token", sizes) * width);
    for (const part of this.#partsOf(rows, FLOAT * width)) {
      this.#call(
        (sizes) => embedKernel({ rows: rowsOf("token", sizes), width, ids, part }),
        [{ weight: a.table, part: bytesOf(part, FLOAT * width) }, { weight: b.table }, { scratch }],
      );
    }
    return { scratch, width, per: "token" };
  }

  #layerNorm({ x, gain, bias, epsilon }: Expression & { op: "layerNorm" }): Value {
    const picks = x.op === "pick", input = picks ? x.x : x, { scratch, width, per } = this.#valueOf(input);
    const value: Value = { scratch: -1, width, per: picks ? "wanted token" : per };
    const wanted = picks ? this.#integer(x.rows) : null;
    if (picks) this.#wanted = x.rows;
    value.scratch = this.#acquire((sizes) => FLOAT * rowsOf(value.per, sizes) * width);
    this.#call(
      (sizes) => normKernel({ rows: rowsOf(value.per, sizes), width, epsilon, wanted }),
      [{ scratch }, { scratch: value.scratch }, { weight: gain }, { weight: bias }],
    );
    this.#used(input);
    return value;
  }

  /** Where the layer norm of x is, for numbers of rows whose linear layers do not do it themselves. */
  #normalised({ gain, bias, epsilon }: Expression & { op: "layerNorm" }, x: number, per: Value["per"]): number {
    const width = gain.size, y = this.#acquire((sizes) => FLOAT * rowsOf(per, sizes) * width);
    this.#call(
      (sizes) => {
        const rows = rowsOf(per, sizes);
        return takesNorm(rows) ? null : normKernel({ rows, width, epsilon, wanted: null });
      },
      [{ scratch: x }, { scratch: y }, { weight: gain }, { weight: bias }],
    );
    return y;
  }

  /** A linear layer; its result is added to `onto` if that is given, which must not be needed any more for itself. */
  #linear(
    { x, weight, bias, gelu }: Expression & { op: "linear" },
    onto?: { expression: Expression; value: Value },
  ): Value {
    const norm = x.op === "layerNorm" && x.x.op !== "pick" && this.#uses.get(x) === 1 && !weight.transposed
      ? x
      : undefined;
    const input = norm ? norm.x : x, { scratch, per } = this.#valueOf(input);
    const { inputs, outputs, transposed, format, values } = weight;
    const value = onto?.value ??
      { scratch: this.#acquire((sizes) => FLOAT * rowsOf(per, sizes) * outputs), width: outputs, per };
    const rowBytes = transposed ? inputs * (format === "bfloat16" ? 2 : 4) : 0;
    const parts = transposed ? this.#partsOf(outputs, rowBytes) : [{ first: 0, count: outputs }];
    const normalised = norm && this.#normalised(norm, scratch, per);
    // With layer norm there are two ways, and for any number of rows one of them.
    const ways = [
      ...norm ? [{ fused: true, from: scratch }] : [],
      { fused: false, from: normalised ?? scratch },
    ];
    for (const { fused, from } of ways) {
      for (const part of parts) {
        const optionsFor = (sizes: Sizes): LinearKernelOptions => ({
          ...{ rows: rowsOf(per, sizes), inputs, outputs: part.count, transposed, format, gelu, per },
          norm: fused ? { epsilon: norm!.epsilon } : undefined,
          bias: bias !== null,
          accumulate: onto !== undefined,
          part: parts.length > 1 ? { first: part.first, columns: outputs } : undefined,
        });
        const isWay = ({ rows }: LinearKernelOptions) => !norm || fused === takesNorm(rows);
        const operands = [{ scratch: from }, {
          weight: values,
          part: transposed ? bytesOf(part, rowBytes) : undefined,
        }];
        const result = [{ scratch: value.scratch }, ...bias ? [{ weight: bias }] : []];
        this.#call((sizes) => {
          const options = optionsFor(sizes);
          return isWay(options) && sharesOf(options) === 1 ? linearKernel(options) : null;
        }, [...operands, ...result, ...fused ? [{ weight: norm!.gain }, { weight: norm!.bias }] : []]);
        if (transposed || fused) continue; // never shared out
        const sharesIn = (sizes: Sizes) => {
          const options = optionsFor(sizes), count = sharesOf(options);
          return isWay(options) && count > 1 ? { options, count } : null;
        };
        const shares = this.#acquire((sizes) =>
          (sharesIn(sizes)?.count ?? 0) * rowsOf(per, sizes) * 4 * Math.ceil(outputs / 4) * FLOAT
        );
        const ifShared = (kernel: (options: LinearKernelOptions) => Kernel) => (sizes: Sizes) => {
          const shared = sharesIn(sizes);
          return shared && kernel(shared.options);
        };
        this.#call(ifShared(linearKernel), [...operands, { scratch: shares }]);
        this.#call(ifShared(sumKernel), [{ scratch: shares }, ...result]);
        this.#free.push(shares);
      }
    }
    if (normalised !== undefined) this.#free.push(normalised);
    this.#used(input);
    if (onto && this.#uses.get(onto.expression) !== 1) throw noKernel("a sum whose first part is used again");
    return value;
  }

  /** Attention in each bucket, side by side. */
  #attention(parts: readonly Expression[]): Value {
    const [first] = parts;
    if (first.op !== "attend") throw noKernel(`a join of ${first.op}`);
    const whole = first.qkv.op === "tokensOf" ? first.qkv.x : first.qkv, width = first.heads * first.size;
    const { scratch } = this.#valueOf(whole);
    const y = this.#acquire((sizes) => FLOAT * rowsOf("token", sizes) * width);
    for (const [i, part] of parts.entries()) {
      if (part.op !== "attend" || (part.qkv.op === "tokensOf" ? part.qkv.x : part.qkv) !== whole) {
        throw noKernel("attention to anything but a cache with the step's own tokens in it");
      }
      const { bucket: { positions, rectangle, caches }, heads, size, layer } = part;
      const [keys, values] = caches.slice(2 * layer);
      if (size > MAX_HEAD_SIZE) throw noKernel(`heads wider than ${MAX_HEAD_SIZE} (these have ${size})`);
      this.#buckets[i] ??= { positions, keys };
      const arrays = {
        positions: this.#integer(positions),
        rectangle: rectangle && { rows: this.#integer(rectangle.rows), columns: this.#integer(rectangle.columns) },
      };
      const bucket = { array: BUCKETS, first: 3 * i };
      this.#call(
        ({ buckets }) => attentionKernel({ tokens: buckets[i], heads, size, arrays, bucket }),
        [{ scratch }, { input: keys }, { input: values }, { scratch: y }],
      );
      if (part.qkv.op !== "tokensOf" || i + 1 === parts.length) {
        this.#used(whole, part.qkv.op === "tokensOf" ? parts.length : 1);
      }
    }
    return { scratch: y, width, per: "token" };
  }

  #call(kernel: Call["kernel"], bindings: Binding[]): void {
    this.#calls.push({ kernel, bindings });
  }

  /** The place of an input among those whose integers the kernels read. */
  #integer(input: number): number {
    const known = this.#integers.indexOf(input);
    return 1 + (known >= 0 ? known : this.#integers.push(input) - 1);
  }

  #acquire(bytes: (sizes: Sizes) => number): number {
    const scratch = this.#free.pop() ?? this.#scratch.push([]) - 1;
    this.#scratch[scratch].push(bytes);
    return scratch;
  }

  /** So many uses less of an expression's value; after the last one its memory is free for others. */
  #used(expression: Expression, count = 1): void {
    const uses = this.#uses.get(expression)! - count;
    this.#uses.set(expression, uses);
    if (uses === 0) this.#free.push(this.#values.get(expression)!.scratch);
  }

  /** A table of rows in parts that can be bound, each beginning at a multiple of 128 rows, which all GPUs can bind. */
  #partsOf(rows: number, rowBytes: number): { first: number; count: number }[] {
    const most = Math.floor(this.limits.maxStorageBufferBindingSize / rowBytes / 128) * 128;
    const parts = [];
    for (let first = 0; first < rows; first += most) parts.push({ first, count: Math.min(most, rows - first) });
    return parts;
  }
}

function rowsOf(per: Value["per"], { tokens, wanted }: Sizes): number {
  return per === "token" ? tokens : wanted;
}

function bytesOf({ first, count }: { first: number; count: number }, rowBytes: number) {
  return { byteOffset: first * rowBytes, byteLength: count * rowBytes };
}

function noKernel(what: string): Error {
  return new Error(`Cannot capture this step on WebGPU: there is no kernel for ${what}.`);
}
