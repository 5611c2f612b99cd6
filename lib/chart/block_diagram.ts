/** GPT-2 as a diagram: what a step goes through from top to bottom, and which shape comes out of each part. */

import { type Chart, type ChartOptions, formatNumber, makeChart } from "./specification.ts";

/** The sizes of a GPT-2, under the names of its `config.json`. */
export interface BlockSizes {
  /** Tokens in the vocabulary. */
  readonly vocab_size: number;
  /** Model width. */
  readonly n_embd: number;
  /** Blocks. */
  readonly n_layer: number;
  /** Attention heads of a block. */
  readonly n_head: number;
  /** Width inside the MLP. */
  readonly n_inner: number;
}

/** What a {@link blockDiagram} shows. */
export interface BlockDiagramOptions extends ChartOptions {
  /** Texts that go through together. */
  rows: number;
  /** Tokens of each that this step feeds: 1 in a decode step. */
  tokens: number;
  /** Tokens of each that its part of the cache holds after the step. */
  slots: number;
}

/** Something that a step goes through. */
interface Part {
  name: string;
  kind: string;
  /** What comes out. */
  shape: string;
}

const WEIGHTS = "matrix of weights, shared by all rows",
  CACHE = "KV cache, each row its own",
  OTHER = "everything else";
const KINDS = [
  { kind: WEIGHTS, fill: "#0072b2", text: "#ffffff" },
  { kind: CACHE, fill: "#f0b84d", text: "#1f2328" },
  { kind: OTHER, fill: "#f6f8fa", text: "#1f2328" },
];

/**
 * All parts of a GPT-2, a block drawn once for all of them. Beside each part stands the shape of what comes out, with the
 * numbers of a step; matrices of weights, which the rows of a batch share, differ from the cache, which they do not.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { blockDiagram } from "../chart.ts";
 * import { gpt2Config } from "../mod.ts";
 *
 * const chart = blockDiagram(gpt2Config("gpt2"), { title: "A decode step", rows: 3, tokens: 1, slots: 8 });
 * assert.match(chart.description, /attn.c_attn 768 × 2304 → \[3, 2304\]/);
 * ```
 */
export function blockDiagram(config: BlockSizes, { title, subtitle, rows, tokens, slots }: BlockDiagramOptions): Chart {
  const { before, block, after } = partsOf(config, rows, tokens, slots);
  const parts = [...before, ...block, ...after], first = before.length, last = first + block.length - 1;
  const boxes = parts.map((part, i) => ({
    ...part,
    top: i + 0.17,
    bottom: i + 0.83,
    middle: i + 0.5,
    left: 24,
    right: 76,
  }));
  const arrows = boxes.slice(1).map(({ top }, i) => ({ from: boxes[i].bottom, to: top - 0.04 }));
  const sums = block.flatMap(({ name }, i) => name === "+" ? [first + i] : []);
  const around = sums.map((sum, i) => ({ from: (sums[i - 1] ?? first - 1) + 1, to: sum + 0.5 })); // past a part, into its sum
  const frame = { top: first + 0.06, bottom: last + 0.94, left: 2, right: 99, text: `× ${config.n_layer}` };
  const x = (field: string) => ({
    field,
    type: "quantitative",
    axis: null,
    scale: { domain: [0, 100], nice: false },
  });
  const y = (field: string) => ({
    field,
    type: "quantitative",
    axis: null,
    scale: { domain: [parts.length, 0], nice: false },
  });
  const line = { type: "rule", color: "#57606a", strokeWidth: 1.5 };
  const rule = (values: object[], x1: string, y1: string, x2: string, y2: string) => ({
    data: { values },
    mark: line,
    encoding: { x: x(x1), y: y(y1), x2: { field: x2 }, y2: { field: y2 } },
  });
  const past = around.map((way) => ({ ...way, out: 50, side: 14, box: 24 }));
  return makeChart(inWords(title, before, block, after, config), {
    title: { text: title, subtitle },
    width: 560,
    height: 30 * parts.length,
    layer: [
      {
        data: { values: [frame] },
        mark: { type: "rect", fill: "#ffffff", stroke: "#8c959f", strokeDash: [5, 4], cornerRadius: 6 },
        encoding: { x: x("left"), x2: { field: "right" }, y: y("top"), y2: { field: "bottom" } },
      },
      {
        data: { values: [{ ...frame, at: 4, middle: (frame.top + frame.bottom) / 2 }] },
        mark: { type: "text", fontSize: 14, fontWeight: "bold", color: "#57606a", align: "left" },
        encoding: { x: x("at"), y: y("middle"), text: { field: "text" } },
      },
      rule(past, "out", "from", "side", "from"),
      rule(past, "side", "from", "side", "to"),
      rule(past, "side", "to", "box", "to"),
      rule(arrows.map((arrow) => ({ ...arrow, middle: 50 })), "middle", "from", "middle", "to"),
      {
        data: { values: arrows.map(({ to }) => ({ to, middle: 50 })) },
        mark: { type: "point", shape: "triangle-down", filled: true, color: "#57606a", size: 45, opacity: 1 },
        encoding: { x: x("middle"), y: y("to") },
      },
      {
        data: { values: boxes },
        mark: { type: "rect", stroke: "#8c959f", cornerRadius: 4 },
        encoding: {
          x: x("left"),
          x2: { field: "right" },
          y: y("top"),
          y2: { field: "bottom" },
          fill: {
            field: "kind",
            title: null,
            scale: { domain: KINDS.map(({ kind }) => kind), range: KINDS.map(({ fill }) => fill) },
            legend: { symbolType: "square", symbolStrokeColor: "#8c959f", columns: 3 },
          },
        },
      },
      {
        data: {
          values: boxes.map((box) => ({ ...box, at: 50, ink: KINDS.find(({ kind }) => kind === box.kind)!.text })),
        },
        mark: { type: "text", fontSize: 12 },
        encoding: {
          x: x("at"),
          y: y("middle"),
          text: { field: "name" },
          color: { field: "ink", type: "nominal", scale: null },
        },
      },
      {
        data: { values: boxes.map((box) => ({ ...box, at: 78 })) },
        mark: { type: "text", fontSize: 12, align: "left", color: "#1f2328" },
        encoding: { x: x("at"), y: y("middle"), text: { field: "shape" } },
      },
    ],
  });
}

/** What a step goes through before the blocks, in one of them, and after the last. */
function partsOf({ vocab_size: V, n_embd: D, n_head: H, n_inner: M }: BlockSizes, B: number, T: number, S: number) {
  const N = B * T, shape = (...sizes: number[]) => `[${sizes.join(", ")}]`;
  const weights = (name: string, from: number, to: number, out = N): Part => ({
    name: `${name}  ${from} × ${to}`,
    kind: WEIGHTS,
    shape: shape(out, to),
  });
  const other = (name: string, out: string): Part => ({ name, kind: OTHER, shape: out });
  const wide = shape(N, D), sum = other("+", wide);
  return {
    before: [other("token ids", shape(N)), other("embeddings of token and position: wte + wpe", wide)],
    block: [
      other("layer norm: ln_1", wide),
      weights("attn.c_attn", D, 3 * D),
      other("queries, keys, values, by head", `3 × ${shape(B, H, T, D / H)}`),
      { name: "write keys and values, read all", kind: CACHE, shape: `2 × ${shape(B, H, S, D / H)}` },
      other("attention: softmax(q · kᵀ) · v", shape(B, H, T, D / H)),
      weights("attn.c_proj", D, D),
      sum,
      other("layer norm: ln_2", wide),
      weights("mlp.c_fc", D, M),
      other("GELU", shape(N, M)),
      weights("mlp.c_proj", M, D),
      sum,
    ],
    after: [other("layer norm: ln_f, of each row's last token", shape(B, D)), weights("head", D, V, B)],
  };
}

function inWords(title: string, before: Part[], block: Part[], after: Part[], { n_layer }: BlockSizes): string {
  const list = (parts: Part[]) => parts.map(({ name, shape }) => `${name.replace("  ", " ")} → ${shape}`).join("; ");
  return `${title}. First: ${list(before)}. Then ${formatNumber(n_layer)} times: ${list(block)}. In the end: ${
    list(after)
  }.`;
}
