/** `deno task quantize`: a model with low-precision weights, as a folder of its own. */

import { quantizeModel } from "../gpt2/quantize.ts";
import { formatBytes } from "../util/format.ts";
import { run, UsageError, userPath } from "./command.ts";
import { existingModelFolder } from "./model_flags.ts";

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
  await quantizeModel(await existingModelFolder(models[0]), folder, dtype);
  const { size } = await Deno.stat(`${folder}/model.safetensors`);
  console.log(`${folder} is ready: ${dtype}, ${formatBytes(size)}.`);
  console.log(`Try it: deno task generate --model ${folder} --dtype ${dtype} --prompt "Once upon a time"`);
});
