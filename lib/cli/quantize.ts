/** `deno task quantize`: a model with low-precision weights, as a folder of its own. */

import { quantizeModel } from "../gpt2/quantize.ts";
import { formatBytes } from "../util/format.ts";
import type { ActivationRanges } from "../backend/int8.ts";
import { rangesOfFolder } from "../bench/model_ranges.ts";
import { run, UsageError, userPath } from "./command.ts";
import { chosenBackend, existingModelFolder } from "./model_flags.ts";

await run({
  name: "quantize",
  summary:
    "Writes a model again with low-precision weights: int8 takes a quarter of float32's bytes, bfloat16 half of them.",
  words: "MODEL",
  flags: {
    dtype: { type: "string", value: "TYPE", help: "int8 or bfloat16" },
    output: { type: "string", value: "DIR", help: "the new model's folder" },
  },
}, async ({ dtype, output }, models) => {
  if (models.length !== 1) throw new UsageError("Name one model: its name in models/, or its folder.");
  if (dtype !== "int8" && dtype !== "bfloat16") throw new UsageError("Say --dtype int8 or --dtype bfloat16.");
  if (!output) throw new UsageError("Say where the new model goes: --output DIR.");
  const folder = userPath(output);
  const source = await existingModelFolder(models[0]);
  await quantizeModel(source, folder, dtype, { activationRanges: () => findRanges(source) });
  const { size } = await Deno.stat(`${folder}/model.safetensors`);
  console.log(`${folder} is ready: ${dtype}, ${formatBytes(size)}.`);
  console.log(`Try it: deno task generate --model ${folder} --dtype ${dtype} --prompt "Once upon a time"`);
});

/** What goes into the layers, for the file to say so; nothing where int8 does not run. */
async function findRanges(folder: string): Promise<ActivationRanges> {
  const backend = await chosenBackend({});
  if (backend.ops.takesInputRanges) return await rangesOfFolder(folder, { backend, log: console.error });
  console.error(`The file does not say what goes into the layers: int8 does not run on ${backend.name}.`);
  return new Map();
}
