/** How models run on libtensorflow. */

import { DTYPES } from "../backend/ops.ts";
import { onBackend } from "../backend/current.ts";
import { plainCachePolicy } from "../backend/plain.ts";
import { type Backend, type Parallelism, RUN_AHEAD } from "../backend/types.ts";
import { availableMemory } from "../util/host_memory.ts";
import { tensorflowOnGpu } from "./gpu.ts";
import { stepsInTurn } from "./in_turn.ts";
import { tensorflowOps } from "./ops.ts";
import { FEW_ROWS, packsForOneRow } from "./packing.ts";
import { PRIVATE_KERNELS, workingKernels } from "./probe.ts";
import { openTensorflow, TENSORFLOW, type TensorflowBackend, type TensorflowOptions } from "./tfjs/backend.ts";

/** Opens libtensorflow, on a GPU if that is what it is built for and there is one. */
export async function startTensorflow(options: TensorflowOptions): Promise<Backend> {
  const backend = await openTensorflow(options);
  return await onBackend(TENSORFLOW, () => backend.onGpu ? tensorflowOnGpu(backend) : tensorflowOnCpu(backend));
}

async function tensorflowOnCpu(backend: TensorflowBackend): Promise<Backend> {
  const threads = backend.threads.intraOp;
  const kernels = await workingKernels(backend), missing = PRIVATE_KERNELS.filter((kernel) => !kernels.has(kernel));
  return {
    name: "tensorflow",
    description: `libtensorflow ${backend.binding.TF_Version} on the CPU, ${threads} threads` +
      (missing.length ? `, without the kernels ${missing.join(" and ")}` : ""),
    threads,
    lanes: threads,
    groups: backend.sideBySide,
    ops: tensorflowOps(backend, kernels),
    cachePolicy: { ...plainCachePolicy, roomFor: undefined },
    dtypes: DTYPES.filter((dtype) => dtype === "float32" || kernels.has(dtype)),
    availableMemory,
    createTensor: (shape, fill) => backend.createTensor(shape, fill),
    capturesAll: true,
    runsAhead: RUN_AHEAD.processor,
    capture(inputs, build, { repeated }) {
      const captured = backend.capture(inputs, build, { packs: repeated });
      return {
        run: (inputs, parallelism) => captured.run(inputs, { threads: spread(parallelism) }),
        chain: (inputs, moving, count, parallelism) =>
          onBackend(TENSORFLOW, () => stepsInTurn(captured, inputs, moving, count, spread(parallelism))),
        dispose: () => captured.dispose(),
      };
    },
    trace: (inputs, build, parallelism) => backend.trace(inputs, build, spread(parallelism)),
    stepBuckets: { singles: 3, rectangles: 1 },
    // oneDNN lays out packed weights in one of two ways, and in the wrong one a product takes twice as long.
    sizeClass: (tokens, _, dtype) =>
      tokens === 1 && !packsForOneRow(dtype) ? "one" : tokens <= FEW_ROWS ? "few" : tokens <= 40 ? "some" : "many",
  };
}

/** Operations stay on one thread each; lanes, and the parts of a lane's products, run side by side. */
function spread({ lanes, threads }: Parallelism) {
  return { intraOp: 1, interOp: lanes * threads };
}
