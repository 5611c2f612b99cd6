/** A plan for what is going to be measured. */

import { calibrate, findBetterWay } from "../bench/calibrate.ts";
import { storePlan } from "../bench/stored_plan.ts";
import { Runner } from "../engine/runner.ts";
import type { GPT2 } from "../gpt2/model.ts";
import { withProgress } from "../util/progress.ts";

/**
 * Gives the model a plan of how to spread batches over the processor: the one it has, if a short check finds that it still
 * fits; else one that is measured now and kept. `again` measures in any case. `log` hears why, and what is doubtful.
 */
export async function ensurePlan(
  model: GPT2,
  { again = false, log = console.error }: { again?: boolean; log?: (line: string) => void } = {},
): Promise<void> {
  const runner = Runner.of(model);
  if (!model.backend.capture || model.backend.lanes === 1) return;
  if (runner.plan.length && !again) {
    const better = await findBetterWay(model);
    if (!better) return;
    log(`The plan for lanes and threads no longer fits, so it is measured again. ${better}`);
  }
  const calibration = await withProgress(
    "calibrating lanes and threads (once a month for each model)",
    ({ update }) => calibrate(model, { onProgress: update }),
  );
  runner.plan = calibration.plan;
  if (calibration.doubt) log(`The plan for lanes and threads is kept for an hour only. ${calibration.doubt}`);
  await storePlan(model, calibration).catch((error) =>
    log(`The plan for lanes and threads cannot be kept, and will be measured again: ${error.message}`)
  );
}
