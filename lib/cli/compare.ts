/** Results of several sweeps side by side: what `deno task sweep --compare` does. */

import { renderSvg, sweepChart } from "../chart.ts";
import type { SweepResult } from "../bench/measure.ts";
import { UsageError, userPath } from "./command.ts";
import type { Output } from "./output.ts";
import { table } from "../util/table.ts";
import { parseJson } from "../util/json.ts";

/** Prints throughput by batch size of each file's sweep, and draws all of them into one chart. */
export async function compareSweeps(files: readonly string[], writeChart: Output): Promise<void> {
  if (files.length < 2) throw new UsageError("--compare needs two results or more: --compare A.json B.json");
  const results = await Promise.all(files.map(readSweep));
  const lengths = new Set(results.map(({ promptTokens, maxTokens }) => `${promptTokens} and ${maxTokens}`));
  if (lengths.size > 1) {
    throw new UsageError(
      `These sweeps cannot be compared: their prompts and new tokens have ${[...lengths].join("; ")} tokens.`,
    );
  }
  for (const [i, { model, dtype, backend, versions, created }] of results.entries()) {
    console.log(
      `${label(i)}  ${model.name}, ${dtype}, ${backend} (${versions.backend}), ${created.slice(0, 10)}: ${files[i]}`,
    );
  }
  const sizes = [...new Set(results.flatMap(({ points }) => points.map(({ batchSize }) => batchSize)))];
  const rows = sizes.sort((a, b) => a - b).map((size) => {
    const rates = results.map(({ points }) => points.find(({ batchSize }) => batchSize === size)?.throughput);
    const ratios = rates.slice(1).map((rate) => rate && rates[0] ? `${(rate / rates[0]).toPrecision(3)}x` : "");
    return [`${size}`, ...rates.map((rate) => rate?.toFixed(1) ?? ""), ...ratios];
  });
  const heading = [
    "batch",
    ...results.map((_, i) => `${label(i)} tok/s`),
    ...results.slice(1).map((_, i) => `${label(i + 1)} / ${label(0)}`),
  ];
  console.log(`\n${table([heading, ...rows])}`);
  const names = results.map(({ backend, dtype, model }) => `${backend} ${dtype} ${model.name}`);
  const drawn = results.map((result, i) => {
    const alone = names.indexOf(names[i]) === names.lastIndexOf(names[i]);
    const points = result.points.toSorted((a, b) => a.batchSize - b.batchSize);
    return { ...result, points, model: result.model.name, backend: alone ? result.backend : result.versions.backend };
  });
  console.log(`\nChart: ${await writeChart(await renderSvg(sweepChart(drawn)))}`);
}

async function readSweep(file: string): Promise<SweepResult> {
  let result: Partial<SweepResult> | null;
  try {
    result = parseJson(await Deno.readTextFile(userPath(file)));
  } catch (error) {
    throw new UsageError(`Cannot read the result of a sweep from ${file}: ${(error as Error).message}`);
  }
  if (result?.schemaVersion !== 1 || !Array.isArray(result.points) || result.points.length === 0) {
    throw new UsageError(`Cannot compare ${file}: it is no result of \`deno task sweep\`.`);
  }
  return result as SweepResult;
}

/** A, B, C, … */
function label(i: number): string {
  return String.fromCharCode("A".charCodeAt(0) + i);
}
