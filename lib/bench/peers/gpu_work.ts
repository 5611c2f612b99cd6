/** What a program asks of the GPU, counted where it enters WebGPU. */

/** Counts of calls, and of bytes. */
export interface GpuWork {
  dispatches: number;
  submissions: number;
  bindGroups: number;
  /** Copied to buffers that the processor reads. */
  bytesRead: number;
}

/** Counts what the process asks of all GPUs while `work` runs. */
export async function countGpuWork(work: () => Promise<unknown>): Promise<GpuWork> {
  const counts: GpuWork = { dispatches: 0, submissions: 0, bindGroups: 0, bytesRead: 0 };
  using _1 = spy(GPUComputePassEncoder.prototype, "dispatchWorkgroups", () => counts.dispatches++);
  using _2 = spy(GPUQueue.prototype, "submit", () => counts.submissions++);
  using _3 = spy(GPUDevice.prototype, "createBindGroup", () => counts.bindGroups++);
  using _4 = spy(GPUCommandEncoder.prototype, "copyBufferToBuffer", (...args) => {
    const [, , target, , byteLength] = args as [GPUBuffer, number, GPUBuffer, number, number];
    if (target.usage & GPUBufferUsage.MAP_READ) counts.bytesRead += byteLength;
  });
  await work();
  return counts;
}

/** Calls `seen` before a method until it is disposed of. */
function spy<T extends object>(prototype: T, name: keyof T & string, seen: (...args: unknown[]) => void): Disposable {
  const original = prototype[name] as (...args: unknown[]) => unknown;
  const replacement = function (this: T, ...args: unknown[]) {
    seen(...args);
    return original.apply(this, args);
  };
  Object.defineProperty(prototype, name, { value: replacement, configurable: true, writable: true });
  return {
    [Symbol.dispose]: () =>
      Object.defineProperty(prototype, name, { value: original, configurable: true, writable: true }),
  };
}
