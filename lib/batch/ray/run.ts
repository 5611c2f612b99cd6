/** A batch on a Ray cluster: driver.py, beside this file, does the work, with a worker of this library on each node. */

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { runToEnd } from "../../util/child.ts";
import { rayPython } from "./environment.ts";

/** A batch for a cluster. */
export interface RayBatchOptions {
  /** A file, a folder, a glob, or a URI of one, of JSON lines or, with names in `.parquet`, of Parquet. */
  input: string;
  /** A folder, or its URI. */
  output: string;
  /** Of a cluster (`auto` finds it), or `local:N` for N nodes on this machine. */
  address: string;
  /** How many actors there are. Default: one for each node of `local:N`, else as many as the cluster has room for. */
  minActors?: number;
  maxActors?: number;
  /** What each actor takes. */
  cpusPerActor: number;
  gpusPerActor: number;
  /** As for one machine: what answers depend on. */
  settings: unknown;
  /** The model's folder. */
  folder: string;
  /** How many requests each worker has under way at once. */
  maxBatch: number;
  /** Flags of the workers besides the model's. */
  workerFlags: readonly string[];
}

const PROJECT = resolve(fileURLToPath(new URL("../../..", import.meta.url)));

/** Runs the batch; gives the exit code that it asks for: 1 where some results are errors, 2 for what the user can mend. */
export async function runRayBatch(options: RayBatchOptions): Promise<number> {
  const { input, output, address, settings, folder, minActors = 0, maxActors = 0 } = options;
  const worker = ["run", "-A", "{project}/lib/cli/worker.ts", "--model={model}", ...options.workerFlags];
  const driver = {
    ...{ input, output, address, settings, least: minActors, most: maxActors },
    ...{ cpus: options.cpusPerActor, gpus: options.gpusPerActor, project: PROJECT, model: resolve(folder) },
    patience: 600, // seconds for a node with room for an actor: a cluster may have to grow
    window: 4 * options.maxBatch, // in a worker: whoever leaves its engine, somebody waits
    block: 16 * options.maxBatch, // in a shard: its last rows, which have the engine to themselves, are few
    workers: [[Deno.execPath()], ["deno"], ["npx", "-y", "deno@2"]].map((deno) => [...deno, ...worker]),
  };
  const { code } = await runToEnd(await rayPython(), {
    args: [fileURLToPath(new URL("driver.py", import.meta.url)), JSON.stringify(driver)],
    stdin: "null",
  });
  return code;
}
