/** What the kernels of both families of linear layers share: their options, and the code around the sums. */

import { declare, type Format, type Matrix, STEP, storeFour } from "./wgsl.ts";

/** A linear layer's sizes and surroundings. */
export interface LinearKernelOptions {
  /** N: rows of x. */
  rows: number;
  /** K: numbers in a row of x. */
  inputs: number;
  /** M: numbers in a row of the result that this weight makes. */
  outputs: number;
  /** The weight is [M, K] by rows, not [K, M] in blocks; then nothing else can stand around it. */
  transposed: boolean;
  format: Format;
  /** Each row of x goes through layer norm first. */
  norm?: { epsilon: number };
  bias: boolean;
  gelu: boolean;
  /** The result is added to y instead of replacing it. */
  accumulate: boolean;
  /** What N counts: all tokens of the step, or those that logits are wanted after. */
  per: "token" | "wanted token";
  /** Where the result goes, if the weight is only a part of a wider one. */
  part?: { first: number; columns: number };
}

/** For people: sizes and surroundings. */
export function describe({ inputs, outputs, norm, gelu, accumulate }: LinearKernelOptions): string {
  return `${inputs}→${outputs}${norm ? " norm" : ""}${gelu ? " gelu" : ""}${accumulate ? " sum" : ""}`;
}

/** x and the weight. */
function operandsOf({ inputs, outputs, transposed, format }: LinearKernelOptions): Matrix[] {
  const weight = transposed
    ? { name: "weight", columns: inputs, format }
    : { name: "weight", columns: outputs, format, blockRows: inputs };
  return [{ name: "x", columns: inputs }, weight];
}

/** What all kernels of linear layers begin with: bindings, of which `operands` come first, `rowCount()`, `meets()`, `finish4()`. */
export function linearPrelude(options: LinearKernelOptions, operands = operandsOf(options)): string {
  const { inputs, outputs, transposed, norm, bias, gelu, accumulate, per, part } = options;
  const y: Matrix = { name: "y", columns: part?.columns ?? outputs, access: "read_write", scalar: transposed };
  return `${STEP}${
    declare([
      ...operands,
      y,
      ...bias ? [{ name: "bias", columns: outputs }] : [],
      ...norm ? [{ name: "gain", columns: inputs }, { name: "shift", columns: inputs }] : [],
    ])
  }${storeFour(y)}
fn rowCount() -> u32 { return ${per === "token" ? "tokenCount()" : "wantedCount()"}; }
// x·sigmoid(2u), the tanh form of GELU: see geluNew
fn gelu(x: vec4f) -> vec4f { return x / (1 + exp(x * (-1.5957691216 - 0.0713548163 * x * x))); }
/** What the sums meet on their way to y, asked for before they are there: the bias, and what they are added to. */
struct Meets { bias: vec4f, y: vec4f }
fn meets(row: u32, column: u32) -> Meets {
  return Meets(${bias ? "bias4(0u, column)" : "vec4f()"}, ${
    accumulate ? `y4(row, column + ${part?.first ?? 0}u)` : "vec4f()"
  });
}
/** Four neighbouring sums of a row on their way to y. */
fn finish4(row: u32, column: u32, sums: vec4f, met: Meets) {
  if (row >= rowCount() || column >= ${outputs}u) { return; }
  let four = sums + met.bias;
  y_store4(row, column + ${part?.first ?? 0}u, met.y + ${gelu ? "gelu(four)" : "four"});
}
`;
}
