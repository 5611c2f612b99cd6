/** The GPU: opening it with all that it can do, noticing when it fails. */

import { findGpuAdapter } from "../util/runtime.ts";
import { singleFlight } from "../util/single_flight.ts";

/** A GPU that was opened. */
export interface Gpu {
  readonly device: GPUDevice;
  /** What it calls itself, e.g. `NVIDIA H100 80GB HBM3`. */
  readonly name: string;
  /** True for an adapter that is a program on the processor, such as Mesa's lavapipe. */
  readonly software: boolean;
  /** Throws if the GPU was lost or ran out of memory since it was opened; what it computed since then cannot be trusted. */
  check(): void;
  /** Throws what {@link Gpu.check} does, if that is the reason for an error; else the error. */
  explain(error: unknown): Promise<never>;
  /** True once {@link Gpu.check} has nothing good to say any more. */
  readonly failed: boolean;
}

/** Limits that are asked for as high as the adapter has them: the defaults are those of the weakest phones. */
const LIMITS = [
  "maxBufferSize", //                       one weight of a large model has more than the default 256 MB
  "maxStorageBufferBindingSize", //         GPT-2's token embedding has 154 MB, and the default is 128 MB
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** Throws if there is no GPU but a program on the processor, which is slower than WebAssembly. */
export async function refuseSoftware(): Promise<void> {
  const { name, software } = await findGpu();
  if (software) throw new Error(`the only GPU is a program on the processor, ${name}`);
}

/** Opens the fastest GPU, which may be a program on the processor. Throws an error that says what is missing. */
export async function openGpu(): Promise<Gpu> {
  const { adapter, name, software } = await findGpu();
  const { maxStorageBuffersPerShaderStage: buffers, maxComputeInvocationsPerWorkgroup: threads } = adapter.limits;
  if (buffers < 8 || threads < 256) {
    throw new Error(`the GPU (${name}) lacks what WebGPU promises: its driver is too old`);
  }
  const requiredLimits = Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]]));
  const device = await adapter.requestDevice({ requiredLimits });
  const failure = watch(device, name);
  const check = () => {
    if (failure.message) throw new Error(failure.message);
  };
  return {
    device,
    name,
    software,
    check,
    async explain(error) {
      await new Promise((resolve) => setTimeout(resolve)); // the loss of a device is told in a turn of its own
      check();
      throw error;
    },
    get failed() {
      return failure.message !== undefined;
    },
  };
}

/** The fastest GPU, and what it calls itself. */
async function findGpu(): Promise<{ adapter: GPUAdapter; name: string; software: boolean }> {
  const adapter = await findAdapter(); // some builds of Deno have no navigator.gpu at all
  if (!adapter) throw new Error("there is no GPU that Deno can use: it needs a Vulkan, Metal or DirectX 12 driver");
  const { description, vendor, isFallbackAdapter: software } = adapter.info as GPUAdapterInfo & {
    isFallbackAdapter: boolean; // not in Deno's types yet
  };
  return { adapter, name: description || vendor || "a GPU without a name", software };
}

const findAdapter = singleFlight(findGpuAdapter);

/** Remembers the first thing that goes wrong outside any error scope: from then on results may be wrong. */
function watch(device: GPUDevice, name: string): { message?: string } {
  const failure: { message?: string } = {};
  const advice = "Free the model and load it again, or use another backend.";
  device.lost.then(({ reason, message }) => {
    failure.message ??= `The GPU (${name}) was lost: ${message || reason}. ${advice}`;
  });
  device.addEventListener("uncapturederror", (event) => {
    event.preventDefault(); // Deno would print it
    const { error } = event as GPUUncapturedErrorEvent;
    failure.message ??= error instanceof GPUOutOfMemoryError
      ? `The GPU (${name}) has no memory left. Use fewer rows, fewer tokens or a smaller model. ${advice}`
      : `The GPU (${name}) refused a command: ${error.message}. ${advice}`;
  });
  return failure;
}
