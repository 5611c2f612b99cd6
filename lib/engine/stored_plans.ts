/** Plans that were measured once, kept on disk for the model and the machine. */

import { createHash } from "node:crypto";
import { cpus } from "node:os";
import { join } from "node:path";
import { cacheFolder } from "../util/cache_folder.ts";
import { writeTextFile } from "../util/files.ts";
import type { Backend } from "../backend/types.ts";
import type { GPT2Config } from "../gpt2/config.ts";
import type { Plan } from "./parallelism.ts";

/** What the best way depends on, besides the machine. */
interface Model {
  readonly config: GPT2Config;
  readonly dtype: string;
  readonly backend: Backend;
}

/** The plan that was kept for this model on this machine, or null. */
export async function storedPlan(model: Model): Promise<Plan | null> {
  try {
    return JSON.parse(await Deno.readTextFile(planFile(model))).plan;
  } catch {
    return null; // none yet, or not readable: it can be measured again
  }
}

/** Keeps a plan for this model on this machine. */
export async function storePlan(model: Model, plan: Plan): Promise<void> {
  await writeTextFile(planFile(model), JSON.stringify({ of: identity(model), plan }, null, 1));
}

function planFile(model: Model): string {
  const name = createHash("sha256").update(JSON.stringify(identity(model))).digest("hex").slice(0, 16);
  return join(cacheFolder(), "plans", `${name}.json`);
}

/** What the best way depends on. */
function identity({ config, dtype, backend }: Model) {
  const { n_layer, n_embd, n_head, n_inner, vocab_size } = config;
  return { cpu: cpus()[0]?.model, backend: backend.description, dtype, n_layer, n_embd, n_head, n_inner, vocab_size };
}
