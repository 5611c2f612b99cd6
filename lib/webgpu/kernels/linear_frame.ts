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
  /** The weight is [M, K], not [K, M]; then nothing else can stand around it. */
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

/** What the kernels of both families begin with: bindings, `rowCount()`, `input4(row, k)` without the norm, `finish4()`. */
export function linearPrelude(options: LinearKernelOptions): string {
  const { inputs, outputs, transposed, format, norm, bias, gelu, accumulate, per, part } = options;
  const y: Matrix = { name: "y", columns: part?.columns ?? outputs, access: "read_write", scalar: transposed };
  return `${STEP}${
    declare([
      { name: "x", columns: inputs },
      { name: "weight", columns: transposed ? inputs : outputs, format },
      y,
      ...bias ? [{ name: "bias", columns: outputs }] : [],
      ...norm ? [{ name: "gain", columns: inputs }, { name: "shift", columns: inputs }] : [],
    ])
  }${storeFour(y)}
fn rowCount() -> u32 { return ${per === "token" ? "tokenCount()" : "wantedCount()"}; }
// x·sigmoid(2u), the tanh form of GELU: see geluNew
fn gelu(x: vec4f) -> vec4f { return x / (1 + exp(x * (-1.5957691216 - 0.0713548163 * x * x))); }
/** Four neighbouring sums of a row on their way to y. */
fn finish4(row: u32, column: u32, sums: vec4f) {
  if (row >= rowCount() || column >= ${outputs}u) { return; }
  var four = sums${bias ? " + bias4(0u, column)" : ""};
  ${gelu ? "four = gelu(four);" : ""}
  let at = column + ${part?.first ?? 0}u;
  y_store4(row, at, ${accumulate ? "y4(row, at) + four" : "four"});
}
`;
}
