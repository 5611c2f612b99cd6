/**
 * What sizes.ts measured as a roofline: from steps that wait for kernels to start, far below it, to those that it bounds.
 *
 *     deno run -A draw_sizes.ts RESULTS.json FILE.svg
 */

import { renderSvg, rooflineChart } from "../../../chart.ts";
import { decodeStepCost } from "../../roofline.ts";
import { writeTextFile } from "../../../util/files.ts";
import { CONTEXT, sizedConfig, type SizesResult, STEPS } from "./sizes_config.ts";

const [from, to] = Deno.args;
const { roofs, dtype, points, gpu }: SizesResult = JSON.parse(await Deno.readTextFile(from));
const series = [...new Set(points.map(({ model }) => model))].map((model) => {
  const own = points.filter((point) => point.model === model), billions = own[0].parameters / 1e9;
  return {
    name: `${billions.toFixed(billions < 1 ? 2 : 1)} billion`,
    ...roofs,
    points: own.map(({ batchSize, stepSeconds }, i) => {
      const { flops, bytes } = decodeStepCost(sizedConfig(model), dtype, batchSize, CONTEXT + STEPS / 2);
      const ends = i === 0 || i === own.length - 1;
      return { intensity: flops / bytes, flops: flops / stepSeconds, label: ends ? String(batchSize) : undefined };
    }),
  };
});
const sizes = points.map(({ batchSize }) => batchSize);
await writeTextFile(
  to,
  await renderSvg(rooflineChart(series, {
    title: "The larger the model, the closer to the roof",
    subtitle: `Decode steps in ${dtype}, batch ${Math.min(...sizes)} to ${Math.max(...sizes)}, by parameters; ${
      gpu ?? ""
    }`,
  })),
);
