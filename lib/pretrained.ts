/** Models as users get them: with what was measured of this machine before, as far as that was kept. */

import { storedPlan } from "./bench/stored_plan.ts";
import { Runner } from "./engine/runner.ts";
import type { GPT2Config } from "./gpt2/config.ts";
import { loadGPT2 as load, type LoadOptions, randomGPT2 as random } from "./gpt2/load.ts";
import type { GPT2 } from "./gpt2/model.ts";

/**
 * Loads the model in a folder with `config.json` and its weights as safetensors.
 *
 * Throws an error that names the file when one is missing, damaged, or not a GPT-2's.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadGPT2 } from "./mod.ts";
 *
 * using model = await loadGPT2("models/small");
 * assert.equal(model.config.n_positions, 256);
 * ```
 */
export async function loadGPT2(folder: string, options: LoadOptions = {}): Promise<GPT2> {
  return await withPlan(await load(folder, options));
}

/** Loads models under the name that Hugging Face's transformers gives to this. */
export const AutoModelForCausalLM: { fromPretrained: typeof loadGPT2 } = { fromPretrained: loadGPT2 };

/**
 * A model with random weights: for timing, which does not depend on them, and for tests.
 *
 * @example
 * ```ts
 * import { gpt2Config, randomGPT2, timeDecodeSteps } from "./mod.ts";
 *
 * using model = await randomGPT2({ ...gpt2Config("gpt2"), n_layer: 1 });
 * console.log(await timeDecodeSteps(model, 1), "seconds each");
 * ```
 */
export async function randomGPT2(config: GPT2Config, options: LoadOptions & { seed?: number } = {}): Promise<GPT2> {
  return await withPlan(await random(config, options));
}

/** Has the model follow the plan of lanes and threads that was kept for it. */
async function withPlan(model: GPT2): Promise<GPT2> {
  if (model.backend.capture) Runner.of(model).plan = await storedPlan(model) ?? [];
  return model;
}
