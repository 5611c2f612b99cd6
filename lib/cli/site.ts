/** `deno task site`: the notebooks as a book. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildSite } from "../site/build.ts";
import { run } from "./command.ts";

const FOLDER = join(fileURLToPath(new URL("../../", import.meta.url)), "site");

await run({
  name: "site",
  summary: "Builds the book, every notebook as a page and the library's reference beside them, into site/.",
  flags: {
    serve: { type: "boolean", help: "and shows it at http://127.0.0.1:8001 until you stop it" },
  },
}, async ({ serve }) => {
  const python = await buildSite(FOLDER);
  console.log(`site/index.html is the first page.`);
  if (!serve) return;
  console.log("http://127.0.0.1:8001/");
  const args = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", FOLDER, "8001"];
  const { code } = await new Deno.Command(python, { args, stdout: "null", stderr: "null" }).spawn().status;
  if (code) throw new Error("Cannot serve the site at 127.0.0.1:8001: something else listens there.");
});
