/** Programs that work for this one, and are not to outlive it. */

/** What asks a process to end, where it does not reach the processes that it started, as a terminal's interrupt does. */
const SIGNALS: Deno.Signal[] = Deno.build.os === "windows" ? [] : ["SIGTERM", "SIGHUP"];

/**
 * Runs a program to its end. If this process is asked to end meanwhile, the program is interrupted first, and with it what
 * it started itself, as Python does.
 */
export async function runToEnd(program: string, options: Deno.CommandOptions): Promise<Deno.CommandOutput> {
  const child = new Deno.Command(program, options).spawn();
  const listeners = SIGNALS.map((signal) => [signal, () => void endAfter(child, signal)] as const);
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  try {
    const [{ code, signal, success }, stdout, stderr] = await Promise.all([
      child.status,
      options.stdout === "piped" ? new Response(child.stdout).bytes() : new Uint8Array(),
      options.stderr === "piped" ? new Response(child.stderr).bytes() : new Uint8Array(),
    ]);
    return { code, signal, success, stdout, stderr };
  } finally {
    for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
  }

  async function endAfter(child: Deno.ChildProcess, signal: Deno.Signal): Promise<void> {
    for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
    const kill = (how: Deno.Signal) => {
      try {
        child.kill(how);
      } catch { /* It has ended by itself. */ }
    };
    kill("SIGINT");
    const patience = setTimeout(() => kill("SIGKILL"), 5000);
    await child.status;
    clearTimeout(patience);
    Deno.kill(Deno.pid, signal); // as if nobody had listened
  }
}
