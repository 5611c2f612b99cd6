/** In a page of the book: charts are pictures until they come into view, then live ones where one can point at things. */

import type { Chart } from "../../chart/specification.ts";

const watcher = new IntersectionObserver(async (entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    await bringToLife(target as HTMLElement);
  }
}, { rootMargin: "400px" });

for (const figure of document.querySelectorAll("figure.chart")) watcher.observe(figure);

/** Puts the live chart in the place of the picture, which stays if that does not work. */
async function bringToLife(figure: HTMLElement): Promise<void> {
  const chart: Chart = JSON.parse(figure.querySelector("script")!.textContent!), picture = figure.querySelector("svg")!;
  const { liveChart } = await import("./draw_chart.ts"); // large, so only when the first chart comes into view
  picture.replaceWith(await liveChart(chart));
}
