import assert from "node:assert/strict";
import { gpt2Config, parameterCount } from "../lib/gpt2/config.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import {
  attentionHeads,
  batchGrid,
  blockDiagram,
  candidateGrid,
  type Chart,
  type ChartSeries,
  distributionBars,
  factorChart,
  heatmap,
  latencyChart,
  lineChart,
  logLineChart,
  memoryMap,
  nextTokenBars,
  paddingBars,
  paddingGrids,
  planeChart,
  renderSvg,
  rooflineChart,
  seatChart,
  type SeatStep,
  show,
  showTable,
  stackCharts,
  stackedBars,
  sweepChart,
  throughputChart,
  timelineChart,
  tokenGrid,
  tokenStrip,
  tradeOffChart,
  visibilityGrid,
} from "../lib/chart.ts";
import { tableBundle } from "../lib/chart/table.ts";

const sizes = [1, 2, 4, 8, 16, 32, 64, 128];
const ours = series("this machine, float32", [28, 52, 100, 190, 330, 480, 600, 680], 0.1);
const source = { ...series("the source's figures", [34, 66, 130, 250, 470, 830, 1190, 1482]), muted: true };
const sweep = {
  model: "gpt2",
  backend: "tensorflow",
  dtype: "float32",
  maxTokens: 10,
  points: [{ batchSize: 1, throughput: 25, repeats: [0.4, 0.5, 0.3] }, {
    batchSize: 8,
    throughput: 100,
    repeats: [0.8, 0.9, 0.7],
  }],
};
const prompts = ["<pad> <pad> Never have", "The quick brown fox"].map((text) => text.split(" "));
const grid = tokenGrid({
  title: "Padding on the left",
  kinds: ["token", "padding"],
  rows: prompts.map((tokens, i) => ({
    label: `prompt ${i}`,
    cells: tokens.map((text) => ({ text, kind: text === "<pad>" ? "padding" : "token" })),
  })),
});
const batch = padBatch([[464, 2068, 7586], [12295]], { padTokenId: 50256 });
const names = { tokenToText: (id: number) => ` id${id}` };
const tradeOff = sizes.map((batchSize, i) => ({ batchSize, throughput: [18, 31, 36, 74, 103, 161, 201, 241][i] }))
  .map((point) => ({ ...point, latency: point.batchSize / point.throughput }));

const candidates = [0.44, 0.061, 0.00002].map((probability, id) => ({ id, probability }));
const growing = (count: number) => Array.from({ length: count }, (_, i) => ({ x: i, y: 30 + i }));
const axes = { xTitle: "Tokens so far", quantity: "Time of one step", unit: "ms" };
const fox = ["The", " quick", " brown", " fox"];
const roofs = [
  { name: "float32", bandwidth: 30e9, flops: 400e9, points: [{ intensity: 0.5, flops: 7e9, label: "1" }] },
  { name: "int8", bandwidth: 30e9, flops: 1700e9, points: [{ intensity: 240, flops: 570e9, label: "128" }] },
];

/** Request 0 rides for ten steps; 1 gets off after two, and 2 takes its seat, is preempted at once, and comes again. */
const rides: SeatStep[] = Array.from({ length: 10 }, (_, step) => ({
  rows: [
    { request: 0, seat: 0, phase: step ? "decode" : "prefill" },
    ...step < 2 ? [{ request: 1, seat: 1, phase: step ? "decode" as const : "prefill" as const }] : [],
    ...step === 2 || step > 5 ? [{ request: 2, seat: 1, phase: "prefill" as const }] : [],
  ],
}));
const event = (request: number, what: string, reused = 0) => ({ request, seat: 0, what, reused });
const events = [
  [event(0, "admitted"), event(1, "admitted")],
  [],
  [event(1, "ended"), event(2, "admitted", 8)],
  [
    event(2, "preempted"),
  ],
  [],
  [],
  [event(2, "admitted")],
];
const memory = rides.map(({ rows }, step) => ({
  rows: rows.map((row) => ({ ...row, tokens: 4 })),
  events: events[step] ?? [],
  kvCacheBytes: 10_000 + 500 * step,
}));

const night = [
  { row: "worker 1", kind: "starting", from: 0, to: 2 },
  { row: "worker 1", kind: "a block", from: 2, to: 9, label: "0" },
  { row: "worker 0", kind: "a block", from: 1, to: 1.5, label: "long" },
];

const charts: Record<string, Chart> = {
  "who did what when": timelineChart(night, { title: "One dies", subtitle: "two workers", unit: "s", length: 12 }),
  "seats by steps": seatChart(rides, { title: "Continuous", subtitle: "three requests", seats: 2, length: 16 }),
  "a memory that runs short": memoryMap(memory, { title: "One gives way", bytesPerToken: 100, limit: 15_000 }),
  "a rate by size": logLineChart([{ name: "sum", points: [{ x: 1, y: 6.8 }, { x: 1024, y: 31 }] }], {
    title: "Small arrays measure the call",
    xTitle: "Array (MB)",
    quantity: "Reading",
    unit: "GB/s",
  }),
  "who may see whom": visibilityGrid({
    title: "The lower left, without padding",
    tokens: fox,
    attentionMask: [0, 1, 1, 1],
    visible: fox.map((_, query) => fox.map((_, key) => key > 0 && key <= query)),
  }),
  "a whole model": blockDiagram(gpt2Config("gpt2-xl"), {
    title: "Prefill of a batch",
    subtitle: "sizes with many digits",
    rows: 128,
    tokens: 100,
    slots: 1024,
  }),
  "all heads": attentionHeads({
    title: "Six heads",
    tokens: fox,
    weights: [0, 1].map(() => [0, 1, 2].map(() => causal(4).map((line) => line.map(Number)))),
  }),
  roofline: rooflineChart(roofs, { title: "int8 has the higher roof", subtitle: "two dtypes" }),
  "what times are made of": stackedBars([
    { name: "1", parts: { "reading at full speed": 18, "a step with nothing in it": 4.2 } },
    { name: "128", parts: { "reading at full speed": 1200, "a step with nothing in it": 11 } },
  ], { title: "Reading is most", xTitle: "Batch size", quantity: "Time of a step", unit: "ms" }),
  factors: factorChart([{ name: "free seats for everybody", factor: 128 }, { name: "arithmetic", factor: 0.2 }], {
    title: "Arithmetic takes four fifths",
    total: "gain",
  }),
  throughput: throughputChart([ours, source], { title: "24x the tokens", subtitle: "GPT-2 124M, 10 new tokens" }),
  latency: latencyChart([ours], { title: "Each token waits longer" }),
  "latency of machines that are far apart": latencyChart([
    ours,
    {
      name: "a hundred times as fast",
      points: ours.points.map(({ batchSize, value }) => ({ batchSize, value: value / 100 })),
    },
  ], { title: "Two machines", log: true }),
  "one point": throughputChart([series("a", [3.3])], { title: "A single size" }),
  "a wide range": throughputChart([series("a", [0.02, 40_000])], { title: "Six decades" }),
  "a sweep": sweepChart([sweep], { reference: [source] }),
  "two sweeps": sweepChart([sweep, { ...sweep, dtype: "int8" }]),
  grid,
  attention: heatmap({
    title: "Who looks at whom",
    rows: ["a", " b"],
    columns: ["a", " b"],
    values: [[1, null], [0.3, 0.7]],
  }),
  "large attention": heatmap({ title: "Blocks", rows: labels(40), columns: labels(40), values: causal(40) }),
  stack: stackCharts(grid, grid),
  "a batch's last column": batchGrid(batch, names, { title: "Where to read", markLast: true }),
  "a batch and what came after": batchGrid(batch, names, { title: "Two steps", generated: [[1, 2], [3, 4]] }),
  "tokens, mask and positions": paddingGrids(batch, names),
  "padding in two batches": paddingBars([batch, padBatch([[1], [2]], { padTokenId: 0 })], {
    title: "A third is padding",
  }),
  "gain and price": tradeOffChart(tradeOff, { title: "Batch 8 is the best bargain", marked: 8 }),
  "gain and price of one size": tradeOffChart(tradeOff.slice(0, 1), { title: "One size" }),
  "a few points on plain axes": lineChart([{ name: "a", points: [{ x: 8, y: 45, low: 40, high: 50 }] }], {
    title: "One length",
    ...axes,
  }),
  "many points on plain axes": lineChart([
    { name: "without", points: growing(100) },
    { name: "with", muted: true, points: growing(100).map(({ x }) => ({ x, y: 30 })) },
  ], { title: "Longer texts", ...axes }),
  "a strip of many tokens": tokenStrip(Array.from({ length: 60 }, (_, id) => id * 900), names, { title: "Sixty" }),
  "a strip that goes on": tokenStrip([1, 2], names, { title: "Two more", generated: [3, 4], showIds: false }),
  "what comes next": nextTokenBars(candidates, names, { title: "Half is two tokens", vocabSize: 50257 }),
  "what filters leave": distributionBars(
    [
      { name: "top-k 1", probabilities: [1, 0, 0] },
      { name: "temperature 2", probabilities: [0.6, 0.3, 0.1] },
    ],
    names,
    { title: "Two ways", model: [0.8, 0.15, 0.05], count: 2 },
  ),
  "two measurements": planeChart([
    { name: "temperature", points: [{ x: 40, y: 5, label: "0.3" }, { x: 95, y: 250, label: "1.15" }] },
    { name: "real text", muted: true, points: [{ x: 85, y: 100, label: "real" }] },
  ], { title: "What is new is unlikely", xTitle: "Different bigrams (%)", yTitle: "Perplexity" }),
  "two measurements that never change": planeChart([
    { name: "a", points: [{ x: 100, y: 5, label: "1" }, { x: 100, y: 5, label: "2" }] },
  ], { title: "One place", xTitle: "Share (%)", yTitle: "Perplexity" }),
  "several steps": candidateGrid([candidates, candidates.slice(0, 2)], names, { title: "Two steps" }),
};

for (const [name, chart] of Object.entries(charts)) {
  Deno.test(`the chart of ${name} compiles without a warning and draws all of its words inside the picture`, async () => {
    const svg = await renderSvg(chart);
    assert.deepEqual(await warnings(chart), []);
    const drawn = texts(svg).map(({ text }) => text);
    for (const title of titles(chart)) assert.ok(drawn.includes(title), `${title} is not in ${drawn}`);
    assert.deepEqual(outside(svg), []);
    assert.ok(svg.includes(`role="img" aria-label="${chart.description.slice(0, 12)}`));
  });
}

Deno.test("the numbers at the ends of many lines cover neither each other nor the legend", async () => {
  const last = [601, 602, 603, 604, 605, 606];
  const lines = last.map((value) => series(`line ${value}`, [value / 10, value]));
  const drawn = texts(await renderSvg(throughputChart(lines, { title: "All alike" })));
  const legend = Math.max(...drawn.filter(({ text }) => text.startsWith("line ")).map(({ y }) => y));
  const ends = last.map((value) => drawn.find(({ text }) => text === String(value))!.y);
  for (const [i, y] of ends.entries()) {
    assert.ok(y - legend > 13, `${last[i]} is ${y - legend} below the legend`);
    if (i) assert.ok(ends[i - 1] - y > 13, `${last[i]} is ${ends[i - 1] - y} above ${last[i - 1]}`);
  }
});

Deno.test("the check for words outside the picture finds them in a picture cut in half", async () => {
  const svg = await renderSvg(charts.throughput);
  assert.ok(outside(svg.replace(/width="(\d+)"/, (_, width) => `width="${width / 2}"`)).length > 3);
});

Deno.test("the check for warnings hears one", async () => {
  const { encoding, ...rest } = charts.latency;
  assert.match(
    String(await warnings({ ...rest, mark: "rect", encoding: { ...encoding as object, size: { field: "none" } } })),
    /size/,
  );
});

Deno.test("a chart says in words what it shows", () => {
  assert.equal(
    latencyChart([series("float32", [20, 40])], { title: "Cheap rows" }).description,
    "Cheap rows. Latency by batch size: float32: 1: 20,000 ms, 2: 40,000 ms.",
  );
  assert.equal(
    sweepChart([sweep]).description,
    "4x the tokens per second at batch 8. Throughput by batch size: gpt2, float32, tensorflow: 1: 25 tok/s, " +
      "8: 100 tok/s. Each token takes 2x as long. Latency by batch size: gpt2, float32, tensorflow: 1: 40 ms, 8: 80 ms.",
  );
  assert.equal(
    grid.description,
    "Padding on the left. prompt 0: <pad> (padding), <pad> (padding), Never, have. prompt 1: The, quick, brown, fox.",
  );
  assert.equal(
    charts.attention.description,
    "Who looks at whom. Query by key. a: most at a, 1.00. ·b: most at ·b, 0.70.",
  );
  const options = { title: "Padding", rows: ["pad", "a"], columns: ["pad", "a"], values: [[null, null], [null, 1]] };
  assert.equal(heatmap(options).description, "Padding. Query by key. pad: nothing. a: most at a, 1.00.");
});

Deno.test("a chart of seats tells one ride from the next, and the steps of a prompt from those of its answer", () => {
  const { description, layer } = charts["seats by steps"] as Chart & { layer: { data: { values: unknown[] } }[] };
  assert.equal(
    description,
    "Continuous. 2 seats, 10 steps, 85% of the seats taken. seat 0: 0 (steps 0 to 9). " +
      "seat 1: 1 (steps 0 to 1), 2 (steps 2 to 2), 2 (steps 6 to 9).",
  );
  const cells = layer[0].data.values as { kind: string; from: number; to: number }[];
  const of = (wanted: string) => cells.filter(({ kind }) => kind === wanted).map(({ from, to }) => [from, to]);
  assert.deepEqual(of("empty seat"), [[0, 10], [0, 10]]);
  assert.deepEqual(of("decode"), [[1, 10], [1, 2]]);
  assert.deepEqual(of("prefill"), [[0, 1], [0, 1], [2, 3], [6, 10]]);
  assert.throws(() => seatChart(rides, { title: "One seat", seats: 1 }), /seat 1 is none of 1/);
  const alone = seatChart([{ rows: [] }], { title: "One", seats: 1 });
  assert.equal(alone.description, "One. 1 seat, 1 step, 0% of the seats taken. seat 0: nobody.");
});

Deno.test("a timeline keeps its rows in order, leaves out words that have no room, and refuses what ends before it begins", async () => {
  const chart = charts["who did what when"];
  const expected = "One dies. Until 9 s. worker 1: starting 2 s, a block 7 s. worker 0: a block 0.5 s.";
  assert.equal(chart.description, expected);
  const drawn = texts(await renderSvg(chart));
  assert.ok(drawn.some(({ text }) => text === "0") && !drawn.some(({ text }) => text === "long"));
  const [first, second] = ["worker 1", "worker 0"].map((row) => drawn.find(({ text }) => text === row)!.y);
  assert.ok(first < second, `${first}, ${second}`);
  const backwards = [{ row: "a", kind: "b", from: 2, to: 1 }];
  assert.throws(() => timelineChart(backwards, { title: "", unit: "s" }), /Cannot chart a timeline: .*"from":2/);
  assert.throws(() => timelineChart([], { title: "", unit: "s" }), /there are no spans/);
});

Deno.test("a map of memory has a band for each stay, as high as the tokens that it holds, up to its end", () => {
  const { description, layer } = charts["a memory that runs short"] as Chart & {
    layer: { data: { values: unknown[] } }[];
  };
  assert.equal(
    description,
    "One gives way. Of 15.0 kB that the cache may take, it takes 14.5 kB at most. request 0: steps 0 to 9, 40 tokens at most. " +
      "request 1: steps 0 to 1, 8 tokens at most. request 2: steps 2 to 2, 12 tokens at most, then preempted. " +
      "request 2: steps 6 to 9, 16 tokens at most.",
  );
  const cells = layer[0].data.values as { step: number; bottom: number; top: number }[];
  const at = (wanted: number) => cells.filter(({ step }) => step === wanted).map(({ bottom, top }) => [bottom, top]);
  assert.deepEqual([at(1), at(2), at(4)], [[[0, 0.8], [0.8, 1.6]], [[0, 1.2], [1.2, 2.4]], [[0, 2]]]);
  assert.equal(layer[3].data.values.length, 1); // one cross
});

Deno.test("a sweep's bars span its slowest and its fastest repeat", () => {
  const [throughput, latency] = sweepChart([sweep]).vconcat as { data: { values: { low: number; high: number }[] } }[];
  assert.deepEqual([throughput.data.values[0].low, throughput.data.values[0].high], [20, 10 / 0.3]);
  assert.deepEqual([latency.data.values[0].low, latency.data.values[0].high].map(Math.round), [30, 50]);
});

Deno.test("latency begins at zero, or on a logarithmic axis gives equal factors equal heights", async () => {
  const heights = async (log: boolean) => {
    const points = [1, 10, 100].map((value, i) => ({ batchSize: 2 ** i, value }));
    const svg = await renderSvg(latencyChart([{ name: "a", points }], { title: "Tenfold", log }));
    return [...svg.matchAll(/<path transform="translate\([\d.]+,([\d.]+)\)"[^>]*fill="#0072b2"/g)].map((m) =>
      Number(m[1])
    );
  };
  const [low, middle, high] = await heights(true);
  assert.ok(Math.abs((low - middle) - (middle - high)) < 0.1, `${low}, ${middle}, ${high}`);
  const [first, second, third] = await heights(false);
  assert.ok(second - third > 9 * (first - second), `${first}, ${second}, ${third}`);
});

Deno.test("results of a sweep are named by what tells them apart", () => {
  const names = (chart: Chart) =>
    (chart.vconcat as { encoding: { color: { scale: { domain: string[] } } } }[])[0].encoding.color.scale.domain;
  assert.deepEqual(names(sweepChart([sweep, { ...sweep, dtype: "int8" }])), ["float32", "int8"]);
  assert.deepEqual(names(sweepChart([sweep, sweep])), ["run 1", "run 2"]);
});

Deno.test("a legend names the kinds of cells, and every token of a small heatmap is named on both sides", async () => {
  const drawn = async (chart: Chart) => texts(await renderSvg(chart)).map(({ text }) => text);
  assert.deepEqual((await drawn(grid)).filter((text) => ["token", "padding"].includes(text)), ["token", "padding"]);
  const tokens = ["The", " quick", " brown", " fox", " jumped", " over", " the"];
  const attention = await drawn(heatmap({ title: "All", rows: tokens, columns: tokens, values: causal(7) }));
  for (const token of tokens) {
    assert.equal(attention.filter((text) => text === token.replace(" ", "·")).length, 2, token);
  }
});

Deno.test("a legend names the lines, unless there is one", async () => {
  const names = async (chart: Chart) => texts(await renderSvg(chart)).filter(({ text }) => text === ours.name).length;
  assert.deepEqual([await names(charts.throughput), await names(charts.latency)], [1, 0]);
});

Deno.test("figures to compare with are grey and dashed", async () => {
  const svg = await renderSvg(charts.throughput);
  assert.match(svg, /stroke="#6e7781"[^>]*stroke-dasharray="5,4"/);
});

Deno.test("numbers at the ends of lines do not cover each other", async () => {
  const svg = await renderSvg(throughputChart([series("a", [10, 1482]), series("b", [10, 1493])], { title: "Close" }));
  const [a, b] = ["1,482", "1,493"].map((number) => texts(svg).find(({ text }) => text === number)!);
  assert.ok(Math.abs(a.y - b.y) >= 12, `${a.y} and ${b.y}`);
});

Deno.test("a value that no logarithmic axis can hold is refused with its place", () => {
  assert.throws(() => throughputChart([series("a", [10, 0])], { title: "" }), {
    name: "RangeError",
    message: 'Cannot chart throughput: {"series":"a","batchSize":2,"value":0}.',
  });
  assert.throws(() => throughputChart([], { title: "" }), { message: "Cannot chart throughput: there are no points." });
});

Deno.test("numbers that no logarithmic axis can hold are refused in rooflines and factors too", () => {
  const [roof] = roofs;
  assert.throws(() => rooflineChart([{ ...roof, bandwidth: 0 }], { title: "" }), { message: /roofline: 0 is in it/ });
  assert.throws(() => rooflineChart([{ ...roof, points: [] }], { title: "" }), { message: /there are no points/ });
  assert.throws(() => factorChart([{ name: "a", factor: -1 }], { title: "", total: "" }), { message: /"factor":-1/ });
  const line = { name: "a", points: [{ x: 0, y: 1 }] };
  assert.throws(() => logLineChart([line], { title: "", xTitle: "Size", quantity: "Rate", unit: "" }), {
    message: 'Cannot chart rate: {"series":"a","x":0,"y":1}.',
  });
  const axis = { title: "", xTitle: "Size", quantity: "Time", unit: "ms" };
  assert.throws(() => stackedBars([{ name: "a", parts: { b: -1 } }], axis), { message: /Cannot stack time: .*-1/ });
  assert.throws(() => stackedBars([], axis), { message: "Cannot stack time: there are no bars." });
  assert.throws(() => factorChart([], { title: "", total: "" }), { message: /there are none/ });
});

Deno.test("a roof rises with the bandwidth as far as its ridge point, and every measured point lies below it", () => {
  const { layer } = charts.roofline as unknown as { layer: { data?: { values: Place[] } }[] };
  const [left, ridge, right] = layer[0].data!.values.filter(({ series }) => series === "float32");
  assert.ok(Math.abs(left.billions - 30 * left.intensity) < 1e-9);
  assert.deepEqual([ridge.intensity, ridge.billions, right.billions], [400 / 30, 400, 400]);
  type Place = { series: string; intensity: number; billions: number };
});

Deno.test("the names of ridge points in one place stand above each other", async () => {
  const [, int8] = roofs, twins = [int8, { ...int8, name: "bfloat16", flops: int8.flops * 1.05 }];
  const drawn = texts(await renderSvg(rooflineChart(twins, { title: "Twins" })));
  const [a, b] = drawn.filter(({ text }) => text.startsWith("ridge")).filter((_, i) => i % 2); // each stands on white
  assert.ok(a.y - b.y >= 12, `${a.y} and ${b.y}`);
});

Deno.test("the labels of a roofline's points keep clear of each other, and of all points", async () => {
  const series = ["a", "b", "c"].map((name, i) => ({
    name,
    bandwidth: 30e9,
    flops: 400e9,
    points: [{ intensity: 0.5, flops: (10 + i) * 1e9, label: `batch ${i}` }],
  }));
  const drawn = texts(await renderSvg(rooflineChart(series, { title: "Close by" })));
  const labels = ["batch 0", "batch 1", "batch 2"].map((name) => drawn.find(({ text }) => text === name)!);
  for (const [i, a] of labels.entries()) {
    for (const b of labels.slice(0, i)) {
      assert.ok(Math.abs(a.x - b.x) > 40 || Math.abs(a.y - b.y) > 10, `${a.text}, ${b.text}`);
    }
  }
});

Deno.test("a bar whose whole was measured says that number, and its parts may come to more", async () => {
  const bars = [{ name: "1", parts: { a: 3, b: 4 }, whole: 6 }, { name: "2", parts: { a: 1, b: 1 } }];
  const chart = stackedBars(bars, { title: "T", xTitle: "Size", quantity: "Time", unit: "ms" });
  assert.equal(chart.description, "T. Time by size: 1: 6 ms (a 3, b 4); 2: 2 ms (a 1, b 1).");
  const drawn = texts(await renderSvg(chart)).map(({ text }) => text);
  assert.ok(drawn.includes("6") && !drawn.includes("7"), drawn.join(" "));
});

Deno.test("a line that leaves out sizes which others have is dashed, one that has them all is not", () => {
  const at = (...sizes: number[]) => sizes.map((batchSize) => ({ batchSize, value: batchSize }));
  const series = [{ name: "all", points: at(1, 2, 4) }, { name: "ends", points: at(1, 4) }, {
    name: "two",
    points: at(1, 2),
  }];
  const { layer: [lines] } = throughputChart(series, { title: "" }) as unknown as { layer: Layer[] };
  type Layer = { encoding: { strokeDash: { scale: { range: number[][] } } } };
  assert.deepEqual(lines.encoding.strokeDash.scale.range, [[1, 0], [5, 4], [1, 0]]);
});

Deno.test("bars of factors follow each other, and the last one is their product", () => {
  const { data } = charts.factors as unknown as { data: { values: { from: number; to: number }[] } };
  assert.deepEqual(data.values.map(({ from, to }) => [from, to]), [[1, 128], [128, 25.6], [1, 25.6]]);
});

Deno.test("all heads of a model have a map, and the words say where the last token looks most", async () => {
  const weights = [[[[1, 0], [0.8, 0.2]], [[1, 0], [0.1, 0.9]]]];
  const chart = attentionHeads({ title: "Two heads", tokens: ["a", " b"], weights });
  assert.equal(chart.description, "Two heads. Where ·b looks most, by head. Layer 0: a, ·b.");
  const drawn = texts(await renderSvg(charts["all heads"])).map(({ text }) => text);
  for (const name of ["layer 0", "layer 1", "head 0", "head 2"]) assert.ok(drawn.includes(name), name);
});

Deno.test("a block diagram has every matrix of the model once, and the shapes of the step that it is asked for", () => {
  const config = gpt2Config("gpt2"), { n_layer, n_embd: D } = config;
  const { description } = blockDiagram(config, { title: "T", rows: 3, tokens: 2, slots: 9 });
  const matrices = [...description.matchAll(/(\S+) (\d+) × (\d+) → \[(\d+), (\d+)\]/g)];
  assert.deepEqual(matrices.map(([, name]) => name), ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "head"]);
  const weights = matrices.map(([, name, from, to]) => Number(from) * Number(to) * (name === "head" ? 1 : n_layer));
  const small = parameterCount(config) - weights.reduce((a, b) => a + b); // positions, biases, layer norms
  assert.equal(small, config.n_positions * D + n_layer * (3 * D + D + 4 * D + D + 4 * D) + 2 * D);
  assert.deepEqual(matrices.map(([, , , , rows]) => rows), ["6", "6", "6", "6", "3"]); // the head: last tokens only
  assert.match(description, /2 × \[3, 12, 9, 64\]/); // the cache: rows, heads, slots, a head's width
});

Deno.test("a cell of an unknown kind is refused", () => {
  const rows = [{ label: "0", cells: [{ text: "a", kind: "pad" }] }];
  assert.throws(() => tokenGrid({ title: "", kinds: ["token"], rows }), /Cell "a" is of kind "pad": kinds are token/);
});

Deno.test("show() outside a notebook prints the chart in words, and showTable() a plain table", async () => {
  const { log } = console;
  const lines: string[] = [];
  console.log = (line: string) => lines.push(line);
  try {
    await show(grid);
    await showTable([{ batch: 1, "tok/s": 34 }, { batch: 128, "tok/s": 1482.3 }]);
  } finally {
    console.log = log;
  }
  assert.deepEqual(lines, [grid.description, "batch  tok/s\n────────────\n    1     34\n  128  1,482"]);
});

Deno.test("a batch's picture tells padding by the mask, not by the id, and marks where the next token is read", () => {
  const endOfText = { inputIds: [[50256, 7], [0, 50256]], attentionMask: [[1, 1], [1, 0]] };
  assert.equal(
    batchGrid(endOfText, names, { title: "Ends", markLast: true }).description,
    "Ends. row 0: ·id50256, ·id7 (last column: the next token is read here). row 1: ·id0, pad (read, but padding).",
  );
  assert.equal(
    batchGrid(endOfText, names, { title: "Steps", generated: [[1], [2]] }).description,
    "Steps. row 0: ·id50256, ·id7, ·id1 (generated). row 1: ·id0, pad (padding), ·id2 (generated).",
  );
});

Deno.test("tokens, mask and positions of a batch stand below each other, columns in line", async () => {
  const chart = paddingGrids(batch, names);
  assert.equal(
    chart.description,
    "Tokens: 2 of 6 cells are padding. row 0: ·id464, ·id2068, ·id7586. row 1: pad (padding), pad (padding), ·id12295. " +
      "Attention mask: 1 where a token is real. row 0: 1, 1, 1. row 1: 0 (padding), 0 (padding), 1. " +
      "Position ids: cumulative sum of the mask, minus 1. row 0: 0, 1, 2. row 1: −1 (padding), −1 (padding), 0.",
  );
  const drawn = texts(await renderSvg(chart));
  const ones = drawn.filter(({ text }) => text === "1"); // the first three are the mask's first row
  for (const [i, token] of ["·id464", "·id2068", "·id7586"].entries()) {
    assert.equal(drawn.find(({ text }) => text === token)!.x, ones[i].x, token);
  }
});

Deno.test("padding bars are as long as the batch is wide", () => {
  const bars =
    (paddingBars([batch], { title: "" }).data as { values: { kind: string; from: number; to: number }[] }).values;
  assert.deepEqual(bars.map(({ kind, from, to }) => [kind, from, to]), [
    ["token", 0, 3],
    ["padding", 0, 2],
    ["token", 2, 3],
  ]);
});

Deno.test("a legend names only the kinds of cells that there are", async () => {
  const full = tokenGrid({
    title: "No padding",
    kinds: ["token", "padding"],
    rows: [{ label: "", cells: [{ text: "a", kind: "token" }] }],
  });
  const drawn = texts(await renderSvg(full)).map(({ text }) => text);
  assert.deepEqual(drawn.filter((text) => ["token", "padding"].includes(text)), ["token"]);
});

Deno.test("heatmaps with the same darkest value give equal values equal shades", async () => {
  const shade = async (value: number, most?: number) => {
    const svg = await renderSvg(heatmap({ title: "", rows: ["q"], columns: ["k"], values: [[value]], most }));
    return /fill="(rgb\([^"]*\))"/.exec(svg)?.[1];
  };
  assert.equal(await shade(0.2, 0.8), await shade(0.2, 0.8));
  assert.notEqual(await shade(0.2, 0.8), await shade(0.2));
  assert.match(String(await shade(0)), /rgb/); // nothing anywhere is no division by zero
});

Deno.test("the tokens of a strip stand side by side, within its width, and a full line is followed by another", () => {
  const { data, width } = charts["a strip of many tokens"] as unknown as {
    data: { values: { left: number; right: number; top: number; bottom: number; text: string }[] };
    width: number;
  };
  for (const [i, cell] of data.values.entries()) {
    assert.ok(cell.right <= width && cell.right - cell.left >= cell.text.length * 7.8);
    const next = data.values[i + 1];
    if (next) assert.ok(next.top === cell.top ? next.left > cell.right : next.left === 0 && next.top > cell.bottom);
  }
  assert.ok(new Set(data.values.map(({ top }) => top)).size > 2);
});

Deno.test("a strip shows white space, and bytes that are no character", async () => {
  const odd = { tokenToText: (id: number) => [" a", "\n", "\t", "\\xF0"][id] };
  const drawn = texts(await renderSvg(tokenStrip([0, 1, 2, 3], odd, { title: "Odd" }))).map(({ text }) => text);
  for (const text of ["·a", "↵", "⇥", "\\xF0", "0", "3"]) assert.ok(drawn.includes(text), `${text} in ${drawn}`);
  assert.throws(() => tokenStrip([], odd, { title: "" }), /without tokens/);
});

Deno.test("the bars of the next token say what is left for all others, however little each has", () => {
  assert.equal(
    charts["what comes next"].description,
    "Half is two tokens. ·id0 44%, ·id1 6.1%, ·id2 <0.01%, 50,254 other tokens 50%.",
  );
  const all = nextTokenBars([{ id: 0, probability: 1 }], names, { title: "Certain", vocabSize: 1 });
  assert.equal(all.description, "Certain. ·id0 100%.");
  assert.throws(() => nextTokenBars([], names, { title: "", vocabSize: 1 }), /there are no candidates/);
  assert.throws(() => candidateGrid([], names, { title: "" }), /there are no candidates/);
  assert.throws(
    () => distributionBars([], names, { title: "", model: [] }),
    /Cannot chart distributions: there are none/,
  );
});

Deno.test("lines of many points are read out at a few of them, the ends included, and bad points are refused", () => {
  const [, line] = /without: (.*?);/.exec(charts["many points on plain axes"].description)!;
  const read = line.split(", ");
  assert.deepEqual([read.length, read[0], read.at(-1)], [12, "0: 30 ms", "99: 129 ms"]);
  assert.throws(() => lineChart([{ name: "a", points: [{ x: 1, y: NaN }] }], { title: "", ...axes }), {
    name: "RangeError",
    message: 'Cannot chart time of one step: {"series":"a","x":1,"y":null}.',
  });
});

Deno.test("a trade-off that no logarithmic axis can hold is refused", () => {
  assert.throws(() => tradeOffChart([{ batchSize: 1, throughput: 0, latency: 1 }], { title: "" }), {
    name: "RangeError",
    message: 'Cannot chart the trade-off: {"batchSize":1,"throughput":0,"latency":1}.',
  });
  const origin = [{ name: "a", points: [{ x: 0, y: 0, label: "0" }] }];
  assert.throws(() => planeChart(origin, { title: "", xTitle: "Share", yTitle: "Perplexity" }), {
    message: /^Cannot chart perplexity: .*"y":0/,
  });
  assert.throws(() => tradeOffChart([], { title: "" }), {
    message: "Cannot chart the trade-off: there are no points.",
  });
});

Deno.test("a table aligns numbers on the right and keeps bars out of its cells", () => {
  assert.deepEqual(
    tableBundle([{ prompt: "a|b", "ms": 85.74, wait: "–" }, { prompt: "c", "ms": 1482.3, wait: "2.5 s" }]),
    {
      "text/markdown": "| prompt | ms | wait |\n|:--|--:|--:|\n| a\\|b | 85.7 | – |\n| c | 1,482 | 2.5 s |",
      "text/plain": "prompt     ms   wait\n────────────────────\n   a|b   85.7      –\n     c  1,482  2.5 s",
    },
  );
  assert.throws(() => tableBundle([]), { message: "Cannot show a table without rows." });
});

function series(name: string, values: number[], spread?: number): ChartSeries {
  const range = (value: number) => spread && { low: value * (1 - spread), high: value * (1 + spread) };
  return { name, points: values.map((value, i) => ({ batchSize: sizes[i], value, ...range(value) })) };
}

function labels(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `token ${i}`);
}

function causal(count: number): (number | null)[][] {
  return labels(count).map((_, row) => labels(count).map((_, column) => column <= row ? 1 / (row + 1) : null));
}

async function warnings(chart: Chart): Promise<unknown[]> {
  const { compile } = await import("vega-lite");
  const heard: unknown[] = [];
  const logger = { level: () => logger, warn: hear, error: hear, info: () => logger, debug: () => logger };
  function hear(...words: unknown[]) {
    heard.push(words.join(" "));
    return logger;
  }
  compile(chart as never, { logger: logger as never });
  return heard;
}

/** Titles of a chart, its axes and the charts in it. */
function titles(node: unknown): string[] {
  if (typeof node !== "object" || node === null) return [];
  return Object.entries(node).flatMap(([key, value]) => {
    if (key === "config") return [];
    if (["title", "text", "subtitle"].includes(key) && typeof value === "string") return [value];
    return titles(value);
  });
}

/** Every text of a picture, with the place of its anchor. */
function texts(svg: string) {
  const found: { text: string; x: number; y: number; size: number; anchor: string; turned: boolean }[] = [];
  const open: number[][] = [[0, 0]];
  for (const [, close, name, attributes, content] of svg.matchAll(/<(\/?)(\w+)([^>]*)>([^<]*)/g)) {
    const move = (/translate\(([-\d.]+),([-\d.]+)\)/.exec(attributes) ?? [0, 0, 0]).slice(1, 3).map(Number);
    const at = open.at(-1)!.map((value, i) => value + move[i]);
    if (name === "g") close ? open.pop() : open.push(at);
    if (name !== "text" || close || !content) continue;
    const text = content.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
    const anchor = /text-anchor="(\w+)"/.exec(attributes)?.[1] ?? "start";
    const size = Number(/font-size="(\d+)px"/.exec(attributes)?.[1]);
    found.push({ text, x: at[0], y: at[1], size, anchor, turned: attributes.includes("rotate") });
  }
  return found;
}

/** Texts that reach over the edge, at 0.55 em a character, which is more than a sentence in a sans-serif takes. */
function outside(svg: string): string[] {
  const [width, height] = ["width", "height"].map((name) => Number(new RegExp(`${name}="([\\d.]+)"`).exec(svg)![1]));
  return texts(svg).filter(({ text, x, y, size, anchor, turned }) => {
    const long = text.length * size * 0.55;
    const before = anchor === "end" ? long : anchor === "middle" ? long / 2 : 0;
    const [left, right] = turned ? [x, x] : [x - before, x - before + long];
    return left < 0 || right > width || y < 0 || y > height;
  }).map(({ text }) => text);
}
