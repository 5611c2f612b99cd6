/** What `--model`, `--backend` and `--dtype` mean: shared by the commands that run a model. */

import { join } from "node:path";
import { type Backend, type BackendName, BACKENDS } from "../backend/types.ts";
import { useBackend } from "../backend/select.ts";
import { GPT2_SIZES, gpt2Config, type GPT2Size } from "../gpt2/config.ts";
import { loadGPT2, type LoadOptions, randomGPT2 } from "../pretrained.ts";
import type { Parallelism } from "../backend/types.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { folderName, isKnownModel, isRepository, MODELS_FOLDER } from "../hub/name.ts";
import { type Dtype, DTYPES } from "../backend/ops.ts";
import { formatBytes } from "../util/format.ts";
import { withProgress } from "../util/progress.ts";
import { type Flag, UsageError, userPath, wholeNumber } from "./command.ts";

/** The flags that say which model runs where. */
export const modelFlags = {
  model: { type: "string", value: "DIR|NAME", help: "a model's folder, or the name of one in models/" },
  backend: { type: "string", value: "NAME", help: `auto (default), ${BACKENDS.join(", ")}` },
  dtype: { type: "string", value: "TYPE", help: `of the weights: ${DTYPES.join(", ")} (default float32)` },
  activations: {
    type: "string",
    value: "KIND",
    help: "with int8, what goes into its layers is scaled by constants (static, default) or by row (dynamic)",
  },
  threads: { type: "string", value: "N", help: "threads for libtensorflow, one a core at most (default: all cores)" },
  lanes: {
    type: "string",
    value: "N",
    help: "groups of rows that run side by side, one a thread and a row at most (default: measured, once)",
  },
} as const satisfies Record<string, Flag>;

/** What the flags were set to. */
export type ModelFlagValues = { [K in keyof typeof modelFlags]?: string };

/** Starts the backend that the flags ask for; shows a progress bar if libraries must be installed first. */
export async function chosenBackend(flags: ModelFlagValues): Promise<Backend> {
  const { backend = "auto", threads } = flags, name = backend as BackendName | "auto"; // useBackend refuses other names
  const dtype = dtypeOf(flags);
  return await withProgress(
    "libraries",
    ({ update }) =>
      useBackend(name, {
        dtype,
        threads: threads === undefined ? undefined : wholeNumber(threads, "threads", 1),
        onProgress: update,
      }),
    { format: formatBytes },
  );
}

/**
 * A model's folder: by its name in `models/`, or as given; null if there is neither. A folder of a known name where the user
 * stands is not that model: it is `./NAME`.
 */
export async function modelFolder(model: string): Promise<string | null> {
  const isName = /^\w[\w.-]*$/.test(model) || isRepository(model);
  const named = isName ? [join(MODELS_FOLDER, folderName(model))] : [];
  for (const folder of isKnownModel(model) ? named : [...named, userPath(model)]) {
    if ((await Deno.stat(folder).catch(() => null))?.isDirectory) return folder;
  }
  return null;
}

/** A model's folder. Throws a UsageError if there is none. */
export async function existingModelFolder(name: string): Promise<string> {
  const folder = await modelFolder(name);
  if (folder) return folder;
  const help = isKnownModel(name) || isRepository(name) ? ` Get it: deno task model ${name}` : "";
  if (isKnownModel(name) && await Deno.stat(userPath(name)).catch(() => null)) {
    throw new UsageError(`There is no model "${name}" in models/. For the folder here write ./${name}.${help}`);
  }
  throw new UsageError(`There is no model "${name}": it is neither a folder nor a name in models/.${help}`);
}

/** Loads a model from a folder. Throws a UsageError if there is none. */
export async function loadModel(name: string, flags: ModelFlagValues): Promise<{ model: GPT2; folder: string }> {
  const folder = await existingModelFolder(name);
  return { model: await loadGPT2(folder, await chosenOptions(flags)), folder };
}

/** Loads a model, or, when it is a published size that is not in `models/`, makes it with random weights. */
export async function loadOrMakeModel(name: string, flags: ModelFlagValues): Promise<{ model: GPT2; random: boolean }> {
  const published = Object.hasOwn(GPT2_SIZES, name);
  if (!published || await modelFolder(name)) return { model: (await loadModel(name, flags)).model, random: false };
  return { model: await randomGPT2(gpt2Config(name as GPT2Size), await chosenOptions(flags)), random: true };
}

/** How the flags want a model to be loaded. Throws a UsageError. */
async function chosenOptions(flags: ModelFlagValues): Promise<LoadOptions> {
  const { activations = "static" } = flags, dtype = dtypeOf(flags);
  if (activations !== "static" && activations !== "dynamic") {
    throw new UsageError(`There are no activations "${activations}": use static or dynamic.`);
  }
  return { backend: await chosenBackend(flags), dtype, activations };
}

function dtypeOf({ dtype = "float32" }: ModelFlagValues): Dtype {
  if (!DTYPES.includes(dtype as Dtype)) throw new UsageError(`There is no dtype "${dtype}": use ${DTYPES.join(", ")}.`);
  return dtype as Dtype;
}

/** What `--lanes` asks for: that many lanes, which share the threads. Undefined: as the model's plan says. */
export function chosenParallelism({ lanes }: ModelFlagValues, { backend }: GPT2): Parallelism | undefined {
  if (lanes === undefined) return undefined;
  const count = wholeNumber(lanes, "lanes", 1);
  if (count > backend.lanes) {
    const has = `${backend.name} runs on ${backend.threads} here, and ` +
      (backend.lanes < backend.threads ? "all rows take them together" : "each lane needs one of its own");
    throw new UsageError(`--lanes cannot be more than the threads: ${has}. It is "${lanes}".`);
  }
  return { lanes: count, threads: Math.floor(backend.threads / count) };
}
