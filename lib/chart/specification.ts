/** What all charts share: a Vega-Lite specification that also says in words what it shows, and one look. */

/** A Vega-Lite v5 specification, and its content in words for readers who see no picture. */
export interface Chart {
  /** Says that this is Vega-Lite v5. */
  $schema: string;
  /** What the chart shows, in words. */
  description: string;
  /** The rest of the specification. */
  [property: string]: unknown;
}

/** What stands above a chart. */
export interface ChartOptions {
  /** What the chart shows, as a statement. */
  title: string;
  /** A quieter second line: the model, the machine, the sizes. */
  subtitle?: string;
}

const ink = "#1f2328", quiet = "#57606a", faint = "#d8dee4";

/** The look that all charts share: dark on white, so that they read the same on light and on dark pages. */
export const theme: Record<string, unknown> = {
  background: "#ffffff",
  padding: 16,
  font: "Helvetica, Arial, sans-serif",
  aria: false, // the description says it better than a label on every mark
  view: { stroke: null },
  title: {
    anchor: "start",
    frame: "group",
    offset: 10,
    fontSize: 16,
    color: ink,
    subtitleFontSize: 12,
    subtitleColor: quiet,
    subtitlePadding: 5,
  },
  axis: {
    labelFontSize: 12,
    labelColor: ink,
    labelPadding: 5,
    titleFontSize: 12,
    titleFontWeight: "normal",
    titleColor: quiet,
    titlePadding: 10,
    gridColor: faint,
    domainColor: quiet,
    tickColor: quiet,
  },
  legend: {
    orient: "top",
    direction: "horizontal",
    labelFontSize: 12,
    labelColor: ink,
    labelLimit: 400,
    titleFontSize: 12,
    titleFontWeight: "normal",
    titleColor: quiet,
    columnPadding: 20,
    symbolSize: 80,
    symbolOpacity: 1,
  },
};

/** A specification with the schema and the theme that all charts share. */
export function makeChart(description: string, specification: Record<string, unknown>): Chart {
  return { $schema: "https://vega.github.io/schema/vega-lite/v5.json", description, ...specification, config: theme };
}

/** Text that reads where it crosses a line: the same lies below it in white, a little wider. */
export function overLines<L extends { mark: object; encoding: object }>(text: L): [unknown, L] {
  const white = { value: "#ffffff" };
  const below = {
    ...text,
    mark: { ...text.mark, stroke: white.value, strokeWidth: 4, strokeJoin: "round" },
    encoding: { ...text.encoding, color: white },
  };
  return [below, text];
}

/** For labels and words: `1482.3` -> `1,482`, `85.74` -> `85.7`. */
export function formatNumber(value: number): string {
  return value.toLocaleString("en", value >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 });
}

/** What two charts may use for different things, each with a legend of its own. */
const SCALES = ["color", "fill", "stroke", "shape", "strokeDash"];

/** Several charts, one below the other. */
export function stackCharts(...charts: Chart[]): Chart {
  return makeChart(charts.map(({ description }) => description).join(" "), {
    vconcat: charts.map(({ $schema: _, config: __, ...rest }) => rest),
    spacing: 32,
    resolve: { scale: Object.fromEntries(SCALES.map((name) => [name, "independent"])) },
  });
}
