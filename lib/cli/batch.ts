/** `deno task batch`: OpenAI batch files in and out, on this machine or on a Ray cluster. */

import { dirname } from "node:path";
import { modelDigest } from "../batch/model_digest.ts";
import { runRayBatch } from "../batch/ray/run.ts";
import { runBatch } from "../batch/run.ts";
import { Progress } from "../util/progress.ts";
import { type Flags, number, run, UsageError, userPath, wholeNumber } from "./command.ts";
import { engineFlags, openAnswerer } from "./engine_flags.ts";
import { existingModelFolder, modelFlags } from "./model_flags.ts";

const rayFlags = {
  ray: {
    type: "string",
    value: "ADDRESS|local:N",
    help: "on a Ray cluster, or on N nodes that are made on this machine",
  },
  "min-actors": {
    type: "string",
    value: "N",
    help: "with --ray: the fewest workers (default: one a node of local:N, else 1)",
  },
  "max-actors": { type: "string", value: "N", help: "with --ray: the most (default: one a node, else all that fit)" },
  "cpus-per-actor": { type: "string", value: "N", help: "with --ray: cores of a worker (default: its share, else 1)" },
  "gpus-per-actor": { type: "string", value: "N", help: "with --ray: GPUs of a worker (default 0)" },
} as const;

const flags = {
  input: {
    type: "string",
    value: "FILE.jsonl",
    help: "requests; with --ray also a folder, a glob, a URI, or .parquet",
  },
  output: { type: "string", value: "FILE.jsonl", help: "results, as they end; with --ray a folder of shards" },
  ...modelFlags,
  ...engineFlags,
  ...rayFlags,
} as const;

await run({
  name: "batch",
  summary: "Answers a file of requests, a line of OpenAI's batch format each. Started again, it goes on where it was.",
  flags,
}, async (flags) => {
  const { input, output } = flags;
  if (!input || !output) throw new UsageError("Say --input FILE.jsonl and --output FILE.jsonl.");
  const folder = await existingModelFolder(flags.model ?? "small");
  const settings = { model: await modelDigest(folder), dtype: flags.dtype ?? "float32" };
  if (flags.ray !== undefined) return Deno.exit(await onRay(flags.ray, { input, output, folder, settings }, flags));
  const unused = Object.keys(rayFlags).find((name) => flags[name as keyof typeof rayFlags] !== undefined);
  if (unused) throw new UsageError(`--${unused} needs --ray ADDRESS or --ray local:N.`);
  if (await onThisMachine(userPath(input), userPath(output), settings, flags)) Deno.exit(1);
});

/** Gives the number of errors. */
async function onThisMachine(
  input: string,
  output: string,
  settings: unknown,
  values: Flags<typeof flags>,
): Promise<number> {
  const info = await Deno.stat(input).catch((error) => {
    throw new UsageError(`--input cannot be read: ${error.message}.`);
  });
  if (!info.isFile) throw new UsageError(`--input must be a file, because it is read twice: ${input} is none.`);
  if (await Deno.stat(output).then(({ isFile }) => !isFile, () => false)) {
    throw new UsageError(`--output must be a file: ${output} is there and is none.`);
  }
  await Deno.mkdir(dirname(output), { recursive: true }).catch((error) => {
    throw new UsageError(`--output cannot be written: ${error.message}.`);
  });
  await using opened = await openAnswerer(values);
  const { answerer, limit } = opened, begin = performance.now();
  let progress: Progress | undefined, before = 0;
  try {
    const summary = await runBatch({
      ...{ input, output, settings, limit },
      answer: (entry) => answerer.answer(entry),
      onProgress({ results, tokens }, total) {
        if (!progress) before = tokens;
        progress ??= new Progress("lines", total);
        const perSecond = (tokens - before) / (performance.now() - begin) * 1000;
        progress.update(results, results && perSecond > 0 ? `${Math.round(perSecond)} tokens/s` : "");
      },
    });
    progress?.[Symbol.dispose]();
    const { results, errors, tokens, found } = summary, seconds = (performance.now() - begin) / 1000;
    const rate = found < results ? `, ${Math.round((tokens - before) / seconds)} tokens/s` : "";
    const earlier = found ? `, ${found} of them from before` : "";
    console.log(`${output} is ready: ${results} results${earlier}, ${errors} errors${rate}.`);
    return errors;
  } finally {
    progress?.[Symbol.dispose]();
  }
}

async function onRay(
  address: string,
  { input, output, folder, settings }: { input: string; output: string; folder: string; settings: unknown },
  values: Flags<typeof flags>,
): Promise<number> {
  const nodes = address.startsWith("local:") ? wholeNumber(address.slice("local:".length), "ray local:", 1) : undefined;
  if (!nodes && !/^(auto|[^/\s]+:\d+)$/.test(address)) {
    const clients = address.includes("://")
      ? " From outside a cluster, `ray job submit` starts this command in it."
      : "";
    throw new UsageError(`--ray must be auto, HOST:PORT or local:N: it is "${address}".${clients}`);
  }
  const count = (name: "min-actors" | "max-actors") =>
    values[name] === undefined ? undefined : wholeNumber(values[name], name, 1);
  const [minActors, maxActors] = [count("min-actors"), count("max-actors")];
  if (minActors && maxActors && minActors > maxActors) {
    throw new UsageError(`--min-actors cannot be more than --max-actors: ${minActors} is more than ${maxActors}.`);
  }
  const share = nodes ? Math.max(1, Math.floor(navigator.hardwareConcurrency / nodes)) : 1;
  const cpusPerActor = wholeNumber(values["cpus-per-actor"], "cpus-per-actor", share);
  const gpusPerActor = number(values["gpus-per-actor"], "gpus-per-actor") ?? 0;
  if (gpusPerActor < 0) throw new UsageError(`--gpus-per-actor must be 0 or more: it is "${gpusPerActor}".`);
  const passed = [...Object.keys(modelFlags), ...Object.keys(engineFlags)] as (keyof typeof engineFlags)[];
  const workerFlags = passed.flatMap((name) => values[name] === undefined ? [] : [`--${name}=${values[name]}`])
    .filter((flag) => !flag.startsWith("--model="));
  const onTensorflow = ["auto", "tensorflow"].includes(values.backend ?? "auto");
  if (values.threads === undefined && onTensorflow && !gpusPerActor) workerFlags.push(`--threads=${cpusPerActor}`);
  const place = (path: string) => path.includes("://") ? path : userPath(path);
  return await runRayBatch({
    ...{ input: place(input), output: place(output), address, settings, folder, workerFlags },
    ...{ minActors, maxActors, cpusPerActor, gpusPerActor },
    maxBatch: wholeNumber(values["max-batch"], "max-batch", 32),
  });
}
