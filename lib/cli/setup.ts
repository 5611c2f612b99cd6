/** `deno task setup`: puts on this machine what the other tasks need, or takes it away again. */

import { installRay, removeRay } from "../batch/ray/environment.ts";
import { jupyterEnvironment, removeJupyter } from "../jupyter/environment.ts";
import { ensureOnednn, hasOnednn, removeOnednn } from "../onednn/install.ts";
import { installLibtensorflow, removeLibtensorflow } from "../tensorflow/install/install.ts";
import { findLibtensorflow, installedLibtensorflow, type Libtensorflow } from "../tensorflow/install/locate.ts";
import { Library } from "../tensorflow/capi/library.ts";
import { run, UsageError } from "./command.ts";
import { formatBytes } from "../util/format.ts";
import { withProgress } from "../util/progress.ts";

await run({
  name: "setup",
  summary:
    "Gets libtensorflow (found, or installed into your cache), oneDNN and Jupyter. Every other task gets what it needs.",
  flags: {
    cuda: { type: "boolean", help: "install the build for NVIDIA GPUs: about 2.9 GB to download, 4.6 GB on disk" },
    ray: {
      type: "boolean",
      help: "install Ray, for `deno task batch --ray`: about 170 MB to download, 620 MB on disk",
    },
    remove: { type: "boolean", help: "remove what this and the other tasks installed" },
  },
}, async ({ cuda, ray, remove }) => {
  if (cuda && remove) throw new UsageError("--remove removes every build: leave out --cuda.");
  if (ray && remove) throw new UsageError("--remove removes Ray too: leave out --ray.");
  if (remove) return await removeAll();
  if (ray) return console.log(`Ray for \`deno task batch --ray\`\n  ${await installRay()}`);
  await setUpLibtensorflow(cuda);
  if (hasOnednn()) await setUpOnednn();
  const { python } = await jupyterEnvironment();
  console.log(`Jupyter for the notebooks\n  ${python}`);
});

async function setUpLibtensorflow(cuda = false): Promise<void> {
  if (cuda && Deno.env.get("LIBTENSORFLOW_DIR")) {
    throw new UsageError("LIBTENSORFLOW_DIR is set and would be used instead of the CUDA build: unset it first.");
  }
  const library = await (cuda ? installedLibtensorflow(true) : findLibtensorflow()) ?? await install(cuda);
  const { version } = new Library(library); // opening it shows that this machine can
  console.log(`libtensorflow ${version} from ${library.source}`);
  for (const path of [library.main, library.framework]) if (path) console.log(`  ${path}`);
}

async function install(cuda: boolean): Promise<Libtensorflow> {
  return await withProgress(
    "libtensorflow",
    ({ update, log }) => installLibtensorflow({ cuda, log, onProgress: update }),
    { format: formatBytes },
  );
}

async function setUpOnednn(): Promise<void> {
  const path = await withProgress(
    "oneDNN",
    ({ update, log }) => ensureOnednn({ log, onProgress: update }),
    { format: formatBytes },
  );
  console.log(`oneDNN\n  ${path}`);
}

async function removeAll(): Promise<void> {
  const removed = [];
  for (const remove of [removeLibtensorflow, removeOnednn, removeJupyter, removeRay]) removed.push(...await remove());
  console.log(removed.length ? `Removed:\n${removed.map((path) => `  ${path}`).join("\n")}` : "Nothing to remove.");
}
