/** The backends that this machine has, for tests that run on each of them. */

import { type Backend, type BackendName, BACKENDS } from "../../lib/backend/types.ts";
import { useBackend } from "../../lib/backend/select.ts";
import { tensorflowOnGpu } from "../../lib/tensorflow/gpu.ts";
import { openTensorflow } from "../../lib/tensorflow/tfjs/backend.ts";

// Compiling takes longer than all that tests compute, so XLA leaves out what makes code fast. It looks when libtensorflow is
// loaded. compiled_test.ts, which does not come by here, has it do everything.
if (!Deno.env.has("XLA_FLAGS")) Deno.env.set("XLA_FLAGS", "--xla_backend_optimization_level=0");

/** Backends that work here, by name; of the others, why not. A software GPU counts: the tests are how it is told. */
export async function workingBackends(): Promise<{ working: Backend[]; missing: Map<BackendName, string> }> {
  const working: Backend[] = [], missing = new Map<BackendName, string>();
  for (const name of BACKENDS) {
    try {
      working.push(await useBackend(name));
    } catch (error) {
      missing.set(name, (error as Error).message);
    }
  }
  return { working, missing };
}

/** Registers one test for each backend; those that are not here are shown as ignored, with the reason. */
export function testOnEach(
  { working, missing }: Awaited<ReturnType<typeof workingBackends>>,
  name: string,
  fn: (backend: Backend) => Promise<void>,
): void {
  for (const backend of working) {
    Deno.test(`${backend.name}: ${name}`, async () => {
      await useBackend(backend.name); // makes it tfjs's current one
      await fn(backend);
    });
  }
  for (const [backend, reason] of missing) {
    Deno.test({ name: `${backend}: ${name} (${reason})`, ignore: true, fn() {} });
  }
}

/** libtensorflow with steps that XLA compiles, as on a GPU. */
export async function compiledByXla(): Promise<Backend> {
  return await tensorflowOnGpu(await openTensorflow());
}
