/** The scripts of the site's pages, with the engine that one of them runs, and what that reads. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type Plugin, stop } from "esbuild";
import { copyFiles } from "./copy.ts";

const PROJECT = fileURLToPath(new URL("../../", import.meta.url));

/** Writes scripts, WebAssembly and the shipped model into `folder`. */
export async function bundleScripts(folder: string): Promise<void> {
  const script = (name: string) => join(PROJECT, "lib", "site", "browser", name);
  await build({
    entryPoints: { book: script("live_charts.ts"), run_here: script("run_here.ts") },
    outdir: folder,
    chunkNames: "[name]-[hash]",
    bundle: true,
    splitting: true,
    format: "esm",
    minify: true,
    logLevel: "error",
    alias: { "@tensorflow/tfjs": "@tensorflow/tfjs-core" }, // the engine needs no layers, no gradients, no data sets
    plugins: [withoutDeno],
  });
  await stop();
  const wasm = fileURLToPath(new URL(".", import.meta.resolve("@tensorflow/tfjs-backend-wasm")));
  await copyFiles(wasm, join(folder, "wasm"), /^tfjs-backend-wasm.*\.wasm$/);
  await copyFiles(join(PROJECT, "models", "small"), join(folder, "model"), /\.(json|safetensors)$/);
}

/** Leaves out what only Deno can do, which nothing calls in a page: files, and libtensorflow. */
const withoutDeno: Plugin = {
  name: "without Deno",
  setup(build) {
    const missing = ({ path }: { path: string }) => ({ path, namespace: "missing", sideEffects: false });
    build.onResolve({ filter: /^node:/ }, missing);
    build.onResolve({ filter: /\/tensorflow\/(start|tfjs\/backend)\.ts$/ }, missing);
    build.onLoad({ filter: /.*/, namespace: "missing" }, () => ({ contents: "module.exports = {}" }));
  },
};
