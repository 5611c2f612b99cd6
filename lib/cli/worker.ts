/** `deno task worker`: the engine behind JSON lines, for schedulers such as Ray, Slurm or xargs. */

import { readEntry } from "../batch/entry.ts";
import { readLines } from "../batch/lines.ts";
import type { Result } from "../batch/result.ts";
import { writeAll } from "../util/files.ts";
import { mapAsEnded } from "../util/map_as_ended.ts";
import { run } from "./command.ts";
import { engineFlags, openAnswerer } from "./engine_flags.ts";
import { modelFlags } from "./model_flags.ts";

await run({
  name: "worker",
  summary: "Answers the lines of an OpenAI batch file on stdin, each on stdout as it ends, until stdin ends.",
  flags: { ...modelFlags, ...engineFlags },
}, async (flags) => {
  await using opened = await openAnswerer(flags);
  const { answerer, limit } = opened, encoder = new TextEncoder();
  const results = mapAsEnded(readLines(Deno.stdin.readable), limit, async (line): Promise<Result> => {
    const entry = readEntry(line);
    return { id: `line-${line.number}`, custom_id: entry.customId, ...await answerer.answer(entry) };
  });
  for await (const result of results) await writeAll(Deno.stdout, encoder.encode(JSON.stringify(result) + "\n"));
});
