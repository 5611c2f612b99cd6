/** Who had which seat in which step: a Gantt chart of batches. */

import { plural } from "../util/format.ts";
import { percent } from "./words.ts";
import { type Chart, type ChartOptions, makeChart } from "./specification.ts";

/** A step; those of an engine's timeline are such. */
export interface SeatStep {
  /** Who was fed in it. */
  rows: readonly {
    /** Counts the requests. */
    request: number;
    /** Counts the seats, from 0. */
    seat: number;
    phase: "prefill" | "decode";
  }[];
}

/** What a {@link seatChart} shows. */
export interface SeatChartOptions extends ChartOptions {
  /** How many seats there are. */
  seats: number;
  /** How many steps the axis has: the same in several charts makes them comparable. Default: as many as there were. */
  length?: number;
}

/**
 * Seats by steps: who sat where, and from when to when. What stays empty looks empty.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { seatChart } from "../chart.ts";
 *
 * const steps = (["prefill", "decode"] as const).map((phase) => ({ rows: [{ request: 7, seat: 0, phase }] }));
 * const chart = seatChart(steps, { title: "One passenger", seats: 2 });
 * assert.equal(
 *   chart.description,
 *   "One passenger. 2 seats, 2 steps, 50% of the seats taken. seat 0: 7 (steps 0 to 1). seat 1: nobody.",
 * );
 * ```
 */
export function seatChart(
  steps: readonly SeatStep[],
  { title, subtitle, seats, length = steps.length }: SeatChartOptions,
): Chart {
  const beyond = steps.flatMap(({ rows }) => rows).find(({ seat }) => !(seat >= 0 && seat < seats));
  if (beyond || !steps.length) {
    throw new RangeError(
      `Cannot chart seats: ${beyond ? `seat ${beyond.seat} is none of ${seats}` : "there are no steps"}.`,
    );
  }
  const line = (seat: number) => ({ top: seat + 0.08, bottom: seat + 0.92 });
  const rides = ridesOf(steps);
  const values = [
    ...Array.from({ length: seats }, (_, seat) => ({ kind: EMPTY, from: 0, to: steps.length, ...line(seat) })),
    ...rides.flatMap(({ seat, request, from, to }) =>
      runs(steps, request, from, to).map((run) => ({ ...run, ...line(seat) }))
    ),
  ];
  const taken = steps.reduce((sum, { rows }) => sum + rows.length, 0) / (seats * steps.length);
  const words = Array.from({ length: seats }, (_, seat) => {
    const own = rides.filter((ride) => ride.seat === seat);
    const list = own.map(({ request, from, to }) => `${request} (steps ${from} to ${to - 1})`).join(", ");
    return `seat ${seat}: ${list || "nobody"}.`;
  });
  const wide = rides.filter(({ request, from, to }) => (to - from) * WIDTH / length > 7 * `${request}`.length + 6);
  const kinds = [DECODE, PREFILL, EMPTY];
  const byKind = (range: string[], legend = {}) => ({
    field: "kind",
    title: null,
    scale: { domain: kinds, range },
    legend,
  });
  const centres = Array.from({ length: seats }, (_, seat) => seat + 0.5);
  return makeChart(
    `${title}. ${plural(seats, "seat")}, ${plural(steps.length, "step")}, ${percent(taken)} of the seats taken. ${
      words.join(" ")
    }`,
    {
      title: { text: title, subtitle },
      width: WIDTH,
      height: Math.min(400, 24 * seats),
      encoding: {
        x: {
          field: "from",
          type: "quantitative",
          title: "Step",
          scale: { domain: [0, length], nice: false },
          axis: { format: "d", tickCount: 10, grid: false },
        },
        x2: { field: "to" },
        y: {
          field: "top",
          type: "quantitative",
          title: null,
          scale: { reverse: true, domain: [0, seats], nice: false },
          axis: {
            values: centres,
            labelExpr: `"seat " + floor(datum.value)`,
            labelOverlap: "greedy",
            grid: false,
            ticks: false,
            domain: false,
          },
        },
        y2: { field: "bottom" },
      },
      layer: [
        {
          data: { values },
          mark: { type: "rect", strokeWidth: 0.75 },
          encoding: {
            fill: byKind(["#0072b2", "#f0b84d", "#f6f8fa"]),
            stroke: byKind(["#ffffff", "#ffffff", "#8c959f"]),
          },
        },
        {
          data: { values: wide.map((ride) => ({ ...ride, top: ride.seat + 0.5, from: (ride.from + ride.to) / 2 })) },
          mark: { type: "text", fontSize: 11, fontWeight: "bold", color: "#ffffff" },
          encoding: { text: { field: "request" }, x2: null, y2: null },
        },
      ],
    },
  );
}

const DECODE = "decode", PREFILL = "prefill", EMPTY = "empty seat";
const WIDTH = 600;

interface Ride {
  request: number;
  seat: number;
  from: number;
  to: number;
}

/** From when to when each request sat in one seat, without a break. */
function ridesOf(steps: readonly SeatStep[]): Ride[] {
  const rides: Ride[] = [];
  for (const [step, { rows }] of steps.entries()) {
    for (const { request, seat } of rows) {
      const last = rides.findLast((ride) => ride.request === request);
      if (last?.seat === seat && last.to === step) last.to++;
      else rides.push({ request, seat, from: step, to: step + 1 });
    }
  }
  return rides;
}

/** The stretches of a ride that are in one phase. */
function runs(steps: readonly SeatStep[], request: number, from: number, to: number) {
  const found: { kind: string; from: number; to: number }[] = [];
  for (let step = from; step < to; step++) {
    const kind = steps[step].rows.find((row) => row.request === request)!.phase, last = found.at(-1);
    if (last?.kind === kind) last.to++;
    else found.push({ kind, from: step, to: step + 1 });
  }
  return found;
}
