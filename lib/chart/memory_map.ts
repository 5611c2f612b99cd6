/** Who holds how much of a KV cache in each step. */

import { formatBytes } from "../util/format.ts";
import { type Chart, type ChartOptions, makeChart } from "./specification.ts";

/** A step; those of an engine's timeline are such. */
export interface MemoryStep {
  /** What was fed. */
  rows: readonly { request: number; tokens: number }[];
  /** Who came and went before. */
  events: readonly { request: number; what: string; reused?: number }[];
  /** What the cache took. */
  kvCacheBytes: number;
}

/** What a {@link memoryMap} shows. */
export interface MemoryMapOptions extends ChartOptions {
  /** What the keys and values of one token take. */
  bytesPerToken: number;
  /** What the cache may take. */
  limit: number;
}

/**
 * The tokens that each request holds, one above the other, below what the cache takes for them and what it may take. What is
 * between the two is room that no token is in yet, and rows of requests that have ended.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { memoryMap } from "../chart.ts";
 *
 * const steps = [
 *   { rows: [{ request: 0, tokens: 3 }], events: [{ request: 0, what: "admitted" }], kvCacheBytes: 1600 },
 *   { rows: [{ request: 0, tokens: 1 }], events: [], kvCacheBytes: 1600 },
 * ];
 * const chart = memoryMap(steps, { title: "It grows", bytesPerToken: 100, limit: 2000 });
 * assert.equal(
 *   chart.description,
 *   "It grows. Of 2.0 kB that the cache may take, it takes 1.6 kB at most. request 0: steps 0 to 1, 4 tokens at most.",
 * );
 * ```
 */
export function memoryMap(
  steps: readonly MemoryStep[],
  { title, subtitle, bytesPerToken, limit }: MemoryMapOptions,
): Chart {
  if (!steps.length) throw new RangeError("Cannot chart memory: there are no steps.");
  const stays = staysOf(steps), most = Math.max(limit, ...steps.map(({ kvCacheBytes }) => kvCacheBytes));
  const [unit, size] = most >= 1e6 ? ["MB", 1e6] : ["kB", 1e3];
  const height = (tokens: number) => tokens * bytesPerToken / size, scale = most / size * 1.08;
  const cells = [], labels = [], preempted = [];
  for (const step of steps.keys()) {
    let below = 0;
    for (const stay of stays) {
      const tokens = stay.tokens[step - stay.from];
      if (tokens === undefined) continue;
      const top = below + tokens, cell = { step, next: step + 1, bottom: height(below), top: height(top) };
      cells.push({ ...cell, color: COLORS[stay.request % COLORS.length] });
      const last = step - stay.from === stay.tokens.length - 1;
      const fits = height(tokens) * HEIGHT > 12 * scale && stay.tokens.length * WIDTH > 14 * steps.length;
      if (fits && step - stay.from === Math.floor(stay.tokens.length / 2)) {
        labels.push({ at: step + 0.5, height: height((below + top) / 2), text: String(stay.request) });
      }
      if (last && stay.preempted) preempted.push({ at: step + 1, height: height((below + top) / 2) });
      below = top;
    }
  }
  const taken = steps.flatMap(({ kvCacheBytes }, step) =>
    [step, step + 1].map((at) => ({ at, height: kvCacheBytes / size, what: TAKEN }))
  );
  const allowed = [0, steps.length].map((at) => ({ at, height: limit / size, what: ALLOWED }));
  const lines = { domain: [TAKEN, ALLOWED] };
  const words = stays.map(({ request, from, tokens, preempted }) =>
    `request ${request}: steps ${from} to ${from + tokens.length - 1}, ${Math.max(...tokens)} tokens at most` +
    (preempted ? ", then preempted." : ".")
  );
  const takes = formatBytes(Math.max(...steps.map(({ kvCacheBytes }) => kvCacheBytes)));
  return makeChart(
    `${title}. Of ${formatBytes(limit)} that the cache may take, it takes ${takes} at most. ${words.join(" ")}`,
    {
      title: { text: title, subtitle },
      width: WIDTH,
      height: HEIGHT,
      layer: [
        {
          data: { values: cells },
          mark: { type: "rect", strokeWidth: 0 },
          encoding: {
            x: {
              field: "step",
              type: "quantitative",
              title: "Step",
              scale: { domain: [0, steps.length], nice: false },
              axis: { format: "d", tickCount: 10, grid: false },
            },
            x2: { field: "next" },
            y: {
              field: "bottom",
              type: "quantitative",
              title: `KV cache (${unit})`,
              scale: { domain: [0, scale], nice: false },
            },
            y2: { field: "top" },
            fill: { field: "color", type: "nominal", scale: null },
          },
        },
        {
          data: { values: [...taken, ...allowed] },
          mark: { type: "line", strokeWidth: 2 },
          encoding: {
            x: { field: "at", type: "quantitative" },
            y: { field: "height", type: "quantitative" },
            color: { field: "what", title: null, scale: { ...lines, range: ["#1f2328", "#d55e00"] } },
            strokeDash: { field: "what", title: null, scale: { ...lines, range: [[1, 0], [5, 4]] } },
          },
        },
        {
          data: { values: labels },
          mark: { type: "text", fontSize: 11, fontWeight: "bold", color: "#1f2328" },
          encoding: {
            x: { field: "at", type: "quantitative" },
            y: { field: "height", type: "quantitative" },
            text: { field: "text" },
          },
        },
        {
          data: { values: preempted },
          mark: { type: "text", text: "✕", fontSize: 16, fontWeight: "bold", color: "#d55e00" },
          encoding: { x: { field: "at", type: "quantitative" }, y: { field: "height", type: "quantitative" } },
        },
      ],
    },
  );
}

const TAKEN = "what the cache takes", ALLOWED = "what it may take";
const WIDTH = 600, HEIGHT = 300;
/** Neighbours differ; the ink of the labels reads on all of them. */
const COLORS = ["#9ecae9", "#ffd08a", "#a3dcc0", "#e8bcd5", "#d9d9d9", "#c7c3e8"];

interface Stay {
  request: number;
  /** The first step. */
  from: number;
  /** How many it holds after each step. */
  tokens: number[];
  preempted: boolean;
}

/** From when to when each request held a row, and how many tokens of it. A request that was preempted may come again. */
function staysOf(steps: readonly MemoryStep[]): Stay[] {
  const stays: Stay[] = [], open = new Map<number, Stay>();
  for (const [step, { rows, events }] of steps.entries()) {
    for (const { request, what, reused = 0 } of events) {
      const stay = open.get(request);
      if (what === "admitted") open.set(request, { request, from: step, tokens: [reused], preempted: false });
      else if (stay) {
        open.delete(request);
        stay.preempted = what === "preempted";
      }
    }
    for (const [request, stay] of open) {
      const had = stay.tokens[step - stay.from] ?? stay.tokens.at(-1)!;
      const fed = rows.find((row) => row.request === request)?.tokens ?? 0;
      stay.tokens[step - stay.from] = had + fed;
      if (!stays.includes(stay)) stays.push(stay);
    }
  }
  return stays;
}
