/** Facts about the runtime, for code that also runs in a browser: there `Deno` is missing, and so are these facts. */

const deno: typeof Deno | undefined = globalThis.Deno;

/** Deno's version. */
export const DENO_VERSION: string | undefined = deno?.version.deno;

/** Environment variables: where Deno looks for GPUs, and where a Linux desktop has its sockets. */
const LOOK_AT = "DENO_WEBGPU_BACKEND", DESKTOP = "XDG_RUNTIME_DIR";

/**
 * The fastest GPU; in Deno, with a driver for Vulkan, Metal or DirectX 12. Not through OpenGL, unless the user asks Deno
 * for that: it takes long to start and has less than WebGPU promises. Deno reads where to look when it is first asked.
 */
export async function findGpuAdapter(): Promise<GPUAdapter | null | undefined> {
  if (deno && !deno.env.has(LOOK_AT)) deno.env.set(LOOK_AT, "vulkan,metal,dx12");
  const noDesktop = deno?.build.os === "linux" && !deno.env.has(DESKTOP);
  // Or else Mesa's drivers, which look for a screen, complain.
  if (noDesktop) deno.env.set(DESKTOP, deno.env.get("TMPDIR") ?? "/tmp");
  try {
    return await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  } finally {
    if (noDesktop) deno.env.delete(DESKTOP);
  }
}
