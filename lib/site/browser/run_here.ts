/** The page "Run it in your browser": what its buttons do. */

import { latencyChart, throughputChart } from "../../chart/by_batch_size.ts";
import type { Chart } from "../../chart/specification.ts";
import type { Loaded, Point } from "./engine.ts";
import { fetchFiles, sizeOfFiles } from "./model_files.ts";

const MODEL = new URL("model", import.meta.url).href;

/** An element of the page by its id. */
const element = <E extends HTMLElement>(id: string) => document.getElementById(id) as E;
const [load, generate, sweep, stop] = ["load", "generate", "sweep", "stop"].map((id) => element<HTMLButtonElement>(id));
const progress = element<HTMLProgressElement>("progress"), status = element("status"), answer = element("answer");
const prompt = element<HTMLTextAreaElement>("prompt"), largest = element<HTMLSelectElement>("largest");
const machine = element("machine");
let loaded: Loaded | undefined;

const bytes = sizeOfFiles(MODEL);
bytes.then(
  (bytes) => load.textContent = `Load the model (${(bytes / 1e6).toFixed(0)} MB)`,
  (error) => status.textContent = error.message,
);

load.onclick = () =>
  work("Loading", async (signal) => {
    const total = await bytes, { loadModel, startBackend } = await import("./engine.ts");
    progress.hidden = false;
    const files = await fetchFiles(MODEL, { signal, onProgress: (done) => progress.value = done / total });
    progress.hidden = true;
    const backend = await startBackend(), onGpu = backend.name === "webgpu";
    machine.textContent = onGpu
      ? backend.description
      : "WebGPU reaches no GPU here: this is WebAssembly, which is slower.";
    loaded = await loadModel(files, backend);
    load.hidden = true;
    return "The model is ready. Nothing leaves your machine.";
  });

generate.onclick = () =>
  work("Generating", async (signal) => {
    const { continueText } = await import("./engine.ts");
    answer.textContent = prompt.value;
    const start = performance.now(), maxTokens = 40;
    await continueText(loaded!, prompt.value, { maxTokens, signal, onText: (text) => answer.textContent += text });
    return `Done in ${((performance.now() - start) / 1000).toFixed(1)} s.`;
  });

sweep.onclick = () =>
  work("Measuring", async (signal) => {
    const { measureBatch } = await import("./engine.ts"), points: Point[] = [];
    for (let batchSize = 1; batchSize <= Number(largest.value); batchSize *= 2) {
      status.textContent = `Measuring batch ${batchSize}…`;
      points.push(await measureBatch(loaded!, batchSize, signal));
      await showCharts(points);
    }
    return `Batch ${largest.value} makes ${times(points)} the tokens per second of batch 1.`;
  });

function times(points: readonly Point[]): string {
  return `${(points.at(-1)!.throughput / points[0].throughput).toFixed(1)}x`;
}

async function showCharts(points: readonly Point[]): Promise<void> {
  const { liveChart } = await import("./draw_chart.ts");
  const series = (value: (point: Point) => number) => [{
    name: loaded!.model.backend.name,
    points: points.map((point) => ({ batchSize: point.batchSize, value: value(point) })),
  }];
  const charts: [string, Chart][] = [
    ["throughput", throughputChart(series((point) => point.throughput), { title: "Tokens per second, all rows" })],
    ["latency", latencyChart(series((point) => point.latency), { title: "Milliseconds per token of a row" })],
  ];
  for (const [id, chart] of charts) {
    element(id).replaceChildren(await liveChart(chart));
  }
}

/** Does one thing at a time; the stop button ends it. What `task` returns is said at its end. */
async function work(name: string, task: (signal: AbortSignal) => Promise<string>): Promise<void> {
  const controller = new AbortController(), buttons = [load, generate, sweep];
  status.textContent = `${name}…`;
  for (const button of buttons) button.disabled = true;
  stop.disabled = false;
  stop.onclick = () => controller.abort();
  try {
    status.textContent = await task(controller.signal);
  } catch (error) {
    status.textContent = controller.signal.aborted ? "Stopped." : `${name} failed: ${(error as Error).message}`;
  }
  progress.hidden = stop.disabled = true;
  load.disabled = false;
  for (const button of [generate, sweep]) button.disabled = !loaded;
}
