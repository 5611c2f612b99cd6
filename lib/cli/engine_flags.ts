/** What `--max-batch` and `--kv-cache-bytes` mean: shared by the commands that answer requests as they come. */

import { basename, resolve } from "node:path";
import { Answerer } from "../batch/answer.ts";
import { Engine, type EngineOptions } from "../engine/engine.ts";
import type { ServedModel } from "../openai/completion_request.ts";
import { AutoTokenizer } from "../tokenizer/tokenizer.ts";
import { type Flag, wholeNumber } from "./command.ts";
import { chosenParallelism, loadModel, type ModelFlagValues } from "./model_flags.ts";

/** The flags that say how an engine runs. */
export const engineFlags = {
  "max-batch": { type: "string", value: "N", help: "the most requests under way at once (default 32)" },
  "kv-cache-bytes": {
    type: "string",
    value: "N",
    help: "the most memory for the KV cache (default: half of what is free)",
  },
} as const satisfies Record<string, Flag>;

/** What the flags were set to. */
export type EngineFlagValues = { [K in keyof typeof engineFlags]?: string };

/** What bounds an engine. */
type EngineLimits = Pick<EngineOptions, "maxBatch" | "kvCacheBytes" | "maxQueue">;

/** The limits that the flags set. Throws a UsageError. */
export function engineLimits(flags: EngineFlagValues): EngineLimits {
  const bytes = flags["kv-cache-bytes"];
  return {
    maxBatch: wholeNumber(flags["max-batch"], "max-batch", 32),
    ...bytes !== undefined && { kvCacheBytes: wholeNumber(bytes, "kv-cache-bytes", 1) },
  };
}

/** A model as clients know it, by its folder's name unless it has another one, and an engine for it. */
export async function openEngine(
  flags: ModelFlagValues,
  limits: EngineLimits,
  name?: string,
): Promise<{ engine: Engine; model: ServedModel; weights: Disposable }> {
  const { model, folder } = await loadModel(flags.model ?? "small", flags);
  const tokenizer = await AutoTokenizer.fromPretrained(folder), parallelism = chosenParallelism(flags, model);
  const engine = new Engine({ model, ...limits, parallelism });
  return {
    engine,
    model: { name: name ?? basename(resolve(folder)), config: model.config, tokenizer },
    weights: model,
  };
}

/** An engine that answers the entries of a batch, and how many of them to give it at once. */
export interface OpenedAnswerer extends AsyncDisposable {
  answerer: Answerer;
  limit: number;
}

/** Opens the model that the flags ask for, with an engine. */
export async function openAnswerer(flags: ModelFlagValues & EngineFlagValues): Promise<OpenedAnswerer> {
  const { engine, model, weights } = await openEngine(flags, engineLimits(flags));
  return {
    answerer: new Answerer(engine, model),
    limit: 4 * engine.limits.maxBatch, // whoever leaves, somebody waits
    async [Symbol.asyncDispose]() {
      await engine[Symbol.asyncDispose]();
      weights[Symbol.dispose]();
    },
  };
}
