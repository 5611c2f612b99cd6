/** Models as users get them: with what was measured before of this machine and of the weights, and else is measured now. */

import type { ActivationRanges } from "./backend/int8.ts";
import { rangesOfFolder, rangesOfSeed, type RangesOptions } from "./bench/model_ranges.ts";
import { storedPlan } from "./bench/stored_plan.ts";
import { useBackend } from "./backend/select.ts";
import { Runner } from "./engine/runner.ts";
import type { GPT2Config } from "./gpt2/config.ts";
import { type BuildOptions, loadGPT2 as load, randomGPT2 as random } from "./gpt2/load.ts";
import type { GPT2 } from "./gpt2/model.ts";

/** How a model is loaded. */
export interface LoadOptions extends BuildOptions {
  /**
   * How int8 layers scale their inputs: `static`, by constants that are measured once for the weights, where neither their
   * file nor the cache has them; or `dynamic`, each row as it comes, which is slower and needs no measurement. Default `static`,
   * where the backend can.
   */
  activations?: "static" | "dynamic";
  /** Called with one line about what was measured. Default: stderr. */
  log?: (line: string) => void;
}

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
  const whole = await withRanges(options, (how) => rangesOfFolder(folder, how));
  return await withPlan(await load(folder, whole));
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
  const { seed = 0 } = options, whole = await withRanges(options, (how) => rangesOfSeed(config, seed, how));
  return await withPlan(await random(config, { ...whole, seed }));
}

/** Options with the ranges of activations that int8 layers are to have. */
async function withRanges(
  options: LoadOptions,
  find: (options: RangesOptions) => Promise<ActivationRanges>,
): Promise<BuildOptions> {
  const { dtype } = options,
    { backend = await useBackend("auto", { dtype }), activations = "static", log = console.error } = options;
  if (dtype !== "int8" || !backend.ops.takesInputRanges || options.activationRanges) return { ...options, backend };
  return { ...options, backend, activationRanges: activations === "static" ? await find({ backend, log }) : new Map() };
}

/** Has the model follow the plan of lanes and threads that was kept for it. */
async function withPlan(model: GPT2): Promise<GPT2> {
  if (model.backend.capture) Runner.of(model).plan = await storedPlan(model) ?? [];
  return model;
}
