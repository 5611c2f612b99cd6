/**
 * Charts as plain Vega-Lite specifications, and how to show them. Each chart says in words what it shows, so that it
 * reads in every viewer, and aloud.
 */

export {
  attentionHeads,
  type AttentionHeadsOptions,
  visibilityGrid,
  type VisibilityOptions,
} from "./chart/attention.ts";
export { blockDiagram, type BlockDiagramOptions, type BlockSizes } from "./chart/block_diagram.ts";
export {
  type ChartPoint,
  type ChartSeries,
  latencyChart,
  type LatencyChartOptions,
  throughputChart,
} from "./chart/by_batch_size.ts";
export { type Distribution, distributionBars, type DistributionBarsOptions } from "./chart/distributions.ts";
export { type Factor, factorChart, type FactorChartOptions } from "./chart/factors.ts";
export { type GridRow, heatmap, type HeatmapOptions, tokenGrid, type TokenGridOptions } from "./chart/grid.ts";
export { lineChart, type LineChartOptions, type LinePoint, type LineSeries } from "./chart/lines.ts";
export { logLineChart } from "./chart/log_lines.ts";
export { memoryMap, type MemoryMapOptions, type MemoryStep } from "./chart/memory_map.ts";
export { candidateGrid, type CandidateLike, nextTokenBars, type NextTokenBarsOptions } from "./chart/next_token.ts";
export { batchGrid, type BatchGridOptions, paddingBars, paddingGrids, type TokenNames } from "./chart/padding.ts";
export { planeChart, type PlaneChartOptions, type PlanePoint, type PlaneSeries } from "./chart/plane.ts";
export {
  rooflineChart,
  type RooflinePoint,
  rooflinePoints,
  type RooflineSeries,
  type TimedStep,
} from "./chart/roofline.ts";
export { seatChart, type SeatChartOptions, type SeatStep } from "./chart/seats.ts";
export { progress, type ProgressLike, show } from "./chart/show.ts";
export { type Chart, type ChartOptions, formatNumber, stackCharts, theme } from "./chart/specification.ts";
export { type StackedBar, stackedBars, type StackedBarsOptions } from "./chart/stacked_bars.ts";
export { renderSvg } from "./chart/svg.ts";
export {
  latencySeries,
  sweepChart,
  type SweepChartOptions,
  type SweepLike,
  throughputPoints,
  type TimedPoint,
} from "./chart/sweep.ts";
export { showTable, type TableRow } from "./chart/table.ts";
export { type Span, timelineChart, type TimelineOptions } from "./chart/timeline.ts";
export { tokenStrip, type TokenStripOptions } from "./chart/token_strip.ts";
export { tradeOffChart, type TradeOffOptions, type TradeOffPoint } from "./chart/trade_off.ts";
export { giga, ms, percent, times } from "./chart/words.ts";
