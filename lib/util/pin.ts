/** Libraries of C that stay until the process ends. */

/**
 * Loads a library for good. Those that leave threads or exit handlers behind must not be unloaded, which Deno does as it ends: the
 * process would crash at the very end.
 */
export function pin(path: string): void {
  const libc = { linux: "libc.so.6", darwin: "/usr/lib/libSystem.B.dylib" }[Deno.build.os as string];
  if (!libc) return;
  const { symbols } = Deno.dlopen(libc, { dlopen: { parameters: ["buffer", "i32"], result: "pointer" } });
  const now = 0x2, noDelete = Deno.build.os === "darwin" ? 0x80 : 0x1000;
  symbols.dlopen(new TextEncoder().encode(path + "\0"), now | noDelete); // should it fail, Deno.dlopen fails next, with a message
}
