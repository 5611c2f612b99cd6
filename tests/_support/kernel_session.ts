/** A Deno kernel as a notebook's reader has it, driven from a test. */

import { fileURLToPath } from "node:url";
import { jupyterEnvironment } from "../../lib/jupyter/environment.ts";
import { lines } from "../../lib/util/lines.ts";

/** What a cell printed (a string), threw, or showed. */
export type CellOutput = string | { name: string; message: string } | { type: string; plain: string };

/** Starts a kernel whose working folder is `notebooks/`. The methods are those of kernel_session.py. */
export class KernelSession implements AsyncDisposable {
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: AsyncIterator<string>;
  readonly #complaints: Promise<string>;

  private constructor(readonly child: Deno.ChildProcess) {
    this.#writer = child.stdin.getWriter();
    this.#lines = lines(child.stdout);
    this.#complaints = new Response(child.stderr).text();
  }

  static async start(): Promise<KernelSession> {
    const { python, env } = await jupyterEnvironment();
    const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
    return new KernelSession(
      new Deno.Command(python, {
        args: [here("kernel_session.py"), here("../../notebooks")],
        env: { ...env, NO_COLOR: "1" },
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    );
  }

  /** Runs a cell to its end. */
  async run(code: string): Promise<CellOutput[]> {
    await this.do({ start: code });
    return await this.do({ end: true });
  }

  /** One line of what kernel_session.py understands. */
  async do(order: Record<string, unknown>): Promise<CellOutput[]> {
    await this.#writer.write(new TextEncoder().encode(JSON.stringify(order) + "\n"));
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`The kernel's session ended at ${JSON.stringify(order)}: ${await this.#complaints}`);
    return JSON.parse(value).outputs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.#lines.return?.();
    await this.#complaints;
    await this.child.status;
  }
}
