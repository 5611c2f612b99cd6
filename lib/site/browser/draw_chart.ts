/** Draws live charts in a page, with a box that tells the numbers under the pointer. */

import * as vega from "vega";
import { compile } from "vega-lite";
import type { Chart } from "../../chart/specification.ts";

/** A live chart, which says in words what it shows. */
export async function liveChart(chart: Chart): Promise<HTMLElement> {
  const place = document.createElement("div");
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", chart.description);
  const view = new vega.View(vega.parse(compile(chart as never).spec), {
    renderer: "svg",
    container: place,
    hover: true,
    tooltip: (_, event, __, value) => tooltip.show(event as MouseEvent, value),
  });
  await view.runAsync();
  return place;
}

/** The one box that all charts share. */
const tooltip = {
  box: undefined as HTMLElement | undefined,
  show({ clientX, clientY }: MouseEvent, value: unknown) {
    this.box ??= document.body.appendChild(
      Object.assign(document.createElement("div"), { className: "chart-tooltip" }),
    );
    const lines = typeof value === "object" && value ? Object.entries(value).map(([k, v]) => `${k}: ${v}`) : [value];
    this.box.hidden = value === undefined || value === null || value === "";
    this.box.textContent = lines.join("\n");
    this.box.style.left = `${Math.min(clientX + 12, innerWidth - this.box.offsetWidth - 8)}px`;
    this.box.style.top = `${clientY + 12}px`;
  },
};
