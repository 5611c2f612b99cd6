/**
 * A step of GPT-2 124M on libtensorflow with CUDA, for a profiler of NVIDIA's to look at:
 *
 *     ncu --profile-from-start off --metrics gpu__time_duration.sum deno run -A cuda_steps.ts BATCH_SIZE [DTYPE [TOKENS]]
 *
 * It feeds one token to each row, or as many as are asked for. Only one step is profiled, after those in which XLA compiles
 * and tries out kernels; time does not depend on the weights.
 */

import { useBackend } from "../../../backend/select.ts";
import { gpt2Config } from "../../../gpt2/config.ts";
import { randomGPT2 } from "../../../gpt2/load.ts";
import type { Dtype } from "../../../backend/ops.ts";
import { KvCache } from "../../../engine/kv_cache.ts";
import { Runner } from "../../../engine/runner.ts";

const [batchSize, dtype = "float32", count = "1"] = Deno.args, slots = 16, warmup = 5;
const cuda = Deno.dlopen("libcuda.so.1", {
  cuProfilerStart: { parameters: [], result: "i32" },
  cuProfilerStop: { parameters: [], result: "i32" },
}).symbols;
using model = await randomGPT2(gpt2Config("gpt2"), {
  backend: await useBackend("tensorflow"),
  dtype: dtype as Dtype,
});
const before = slots - Number(count), tokens = Array(Number(count)).fill(0);
using cache = new KvCache(model);
const rows = cache.admit({ slots: Array(Number(batchSize)).fill(slots), length: before });
for (let i = 0; i <= warmup; i++) {
  for (const row of rows) cache.rewind(row, before);
  if (i === warmup) cuda.cuProfilerStart();
  await Runner.of(model).step(cache, rows.map((row) => ({ row, tokens })));
}
cuda.cuProfilerStop();
