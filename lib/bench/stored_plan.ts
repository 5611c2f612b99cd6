/** Plans on disk: one for each model, dtype and machine, for a while. They are a convenience: what cannot be used is not there. */

import { createHash } from "node:crypto";
import { cpus } from "node:os";
import { join } from "node:path";
import type { Plan } from "../engine/runner.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { cacheFolder } from "../util/cache_folder.ts";
import { writeTextFile } from "../util/files.ts";
import type { Calibration } from "./calibrate.ts";

const DAY = 24 * 60 * 60 * 1000;

/** For how long a plan is used, in milliseconds: the machine and its software change. */
const LIFETIME = 30 * DAY;

/** The same for one of which there is a doubt: it is better than none, and soon measured again. */
const DOUBTFUL_LIFETIME = DAY / 24;

/** Keeps a plan for this model on this machine. Throws what the system says if the cache cannot be written. */
export async function storePlan(model: GPT2, { plan, doubt }: Calibration): Promise<void> {
  const created = new Date().toISOString();
  await writeTextFile(planFile(model), JSON.stringify({ of: identity(model), created, doubt, plan }, null, 1) + "\n");
}

/**
 * The plan that was kept for this model on this machine, if its time is not over: a month, or an hour if it was measured
 * while other programs used the processor. Null for anything that is no such plan.
 */
export async function storedPlan(model: GPT2): Promise<Plan | null> {
  try {
    const { of, created, doubt, plan } = JSON.parse(await Deno.readTextFile(planFile(model)));
    const age = Date.now() - Date.parse(created), isOurs = JSON.stringify(of) === JSON.stringify(identity(model));
    const isFresh = age >= 0 && age < (doubt ? DOUBTFUL_LIFETIME : LIFETIME);
    return isOurs && isFresh && isPlan(plan, model.backend.threads) ? plan : null;
  } catch {
    return null;
  }
}

/** Whether this is a plan for a machine with so many threads. */
function isPlan(plan: unknown, threads: number): plan is Plan {
  return Array.isArray(plan) && plan.length > 0 &&
    plan.every(({ batchSize, lanes, threads: each }) =>
      [batchSize, lanes, each].every((count) => Number.isSafeInteger(count) && count > 0) &&
      lanes <= batchSize && lanes * each <= threads
    );
}

function planFile(model: GPT2): string {
  const name = createHash("sha256").update(JSON.stringify(identity(model))).digest("hex").slice(0, 16);
  return join(cacheFolder(), "plans", `${name}.json`);
}

/** What the best way depends on. */
function identity({ config, dtype, backend }: GPT2) {
  const { n_layer, n_embd, n_head, n_inner, vocab_size } = config;
  const cpu = cpus()[0]?.model ?? null;
  return { cpu, backend: backend.description, dtype, n_layer, n_embd, n_head, n_inner, vocab_size };
}
