/** The live page: plain modules, sent as they are. */

import { fileURLToPath } from "node:url";

const FOLDER = new URL("./page/", import.meta.url);

const TYPES: Record<string, string> = { html: "text/html", css: "text/css", js: "text/javascript" };

const FILES = ["index.html", "page.css", "page.js", "bus.js", "crowd.js", "seats_chart.js", "server.js"];

/** Where the page and its parts are. */
export const PAGE_PATHS: readonly string[] = ["/", ...FILES.slice(1).map((name) => `/page/${name}`)];

/** One of them. It may load nothing from elsewhere, and nobody may frame it. */
export async function pageFile(path: string): Promise<Response> {
  const name = path === "/" ? "index.html" : path.slice("/page/".length);
  const headers = {
    "content-type": `${TYPES[name.split(".").at(-1)!]}; charset=utf-8`,
    "content-security-policy": "default-src 'self'; img-src data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
  };
  return new Response(await Deno.readFile(fileURLToPath(new URL(name, FOLDER))), { headers });
}
