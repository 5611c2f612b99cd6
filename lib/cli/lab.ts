/** `deno task lab`: JupyterLab on the notebooks, with a Deno kernel, in the foreground. */

import { fileURLToPath } from "node:url";
import { jupyterEnvironment } from "../jupyter/environment.ts";
import { ensureLibtensorflow, SetupError } from "../tensorflow/install/install.ts";
import { run } from "./command.ts";
import { formatBytes } from "../util/format.ts";
import { withProgress } from "../util/progress.ts";

const project = fileURLToPath(new URL("../../", import.meta.url));

const settings = [
  "--ServerApp.root_dir=.", // so that the sources can be read beside the notebooks
  "--LabApp.default_url=/lab/tree/notebooks",
  "--MultiKernelManager.default_kernel_name=deno",
  "--KernelSpecManager.allowed_kernelspecs=deno",
];

await run({
  name: "lab",
  summary: "Opens the notebooks in JupyterLab. Words after -- go to JupyterLab, e.g. -- --no-browser --port 8889.",
  words: "[-- WORD…]",
  flags: {},
}, async (_, words) => {
  await prepare();
  const { python, env } = await jupyterEnvironment();
  const child = new Deno.Command(python, {
    args: ["-m", "jupyterlab", ...settings, ...Deno.uid() === 0 ? ["--allow-root"] : [], ...words], // as in containers
    cwd: project,
    env,
  }).spawn();
  Deno.addSignalListener("SIGINT", () => {}); // a terminal sends it to JupyterLab too, which asks what to do
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", () => child.kill());
  const { code } = await child.status;
  if (code) throw new Error(`JupyterLab ended with exit code ${code}.`);
});

/** Gets here, where progress can be seen, what the first cell would otherwise stop for. */
async function prepare(): Promise<void> {
  await new Deno.Command(Deno.execPath(), { args: ["install", "--quiet"], cwd: project }).spawn().status;
  try {
    await withProgress(
      "libtensorflow",
      ({ update, log }) => ensureLibtensorflow({ log, onProgress: update }),
      { format: formatBytes },
    );
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(`${error.message} The notebooks will run on a slower backend.`);
  }
}
