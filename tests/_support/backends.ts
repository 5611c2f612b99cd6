/** The backends that this machine has, for tests that run on each of them. */

import { type Backend, type BackendName, BACKENDS } from "../../lib/backend/types.ts";
import { useBackend } from "../../lib/backend/select.ts";

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
