/** A headless Chromium, driven over its own debugging protocol. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";
import { runs } from "./programs.ts";

/** A Chromium for Linux x86-64 in a package; the folder is one that git ignores. */
const PACKAGE = "@sparticuz/chromium", VERSION = "147.0.0";
const FOLDER = fileURLToPath(new URL("../../.bench/chromium", import.meta.url));

/** How to call a browser. */
export interface Chromium {
  path: string;
  env: Record<string, string>;
}

/** `OMNIBUS_CHROMIUM`, or one on the PATH, or the one that an earlier full run installed; null if there is none. */
export async function findChromium(): Promise<Chromium | null> {
  const asked = Deno.env.get("OMNIBUS_CHROMIUM");
  for (const path of asked ? [asked] : ["chromium", "chromium-browser", "google-chrome"]) {
    if (await runs(path, "--version")) return { path, env: {} };
  }
  const path = join(FOLDER, "chromium"), libraries = join(FOLDER, "al2023", "lib");
  if (!await Deno.stat(path).catch(() => null)) return null;
  return { path, env: { LD_LIBRARY_PATH: libraries, FONTCONFIG_PATH: join(FOLDER, "fonts") } };
}

/** Installs one from the package with npm, where it runs at all: 70 MB to download, 270 MB on disk. */
export async function installChromium(): Promise<Chromium | null> {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") return null;
  await Deno.mkdir(FOLDER, { recursive: true });
  await call("npm", ["install", "--no-save", "--ignore-scripts", "--prefix", FOLDER, `${PACKAGE}@${VERSION}`]);
  const bin = join(FOLDER, "node_modules", PACKAGE, "bin");
  for (const name of ["al2023", "fonts"]) { // the libraries that Debian's slim images lack, and a font
    await Deno.mkdir(join(FOLDER, name), { recursive: true });
    const tar = join(FOLDER, `${name}.tar`);
    await Deno.writeFile(tar, brotliDecompressSync(await Deno.readFile(join(bin, `${name}.tar.br`))));
    await call("tar", ["xf", tar, "-C", join(FOLDER, name)]);
  }
  const program = brotliDecompressSync(await Deno.readFile(join(bin, "chromium.br")));
  await Deno.writeFile(join(FOLDER, "unfinished"), program, { mode: 0o755 });
  await Deno.rename(join(FOLDER, "unfinished"), join(FOLDER, "chromium"));
  return await findChromium();
}

async function call(command: string, args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(command, { args, stdout: "null" }).output();
  if (!success) throw new Error(`\`${command} ${args.join(" ")}\` failed: ${new TextDecoder().decode(stderr)}`);
}

/** One page of one browser; both end when it is disposed of. */
export class Page implements AsyncDisposable {
  readonly #waiting = new Map<number, PromiseWithResolvers<Record<string, unknown>>>();
  #lastId = 0;
  #session: string | undefined;

  private constructor(
    private readonly child: Deno.ChildProcess,
    private readonly profile: string,
    private readonly socket: WebSocket,
  ) {
    socket.onmessage = ({ data }) => {
      const { id, result, error } = JSON.parse(data);
      if (error) this.#waiting.get(id)?.reject(new Error(error.message));
      else this.#waiting.get(id)?.resolve(result);
      this.#waiting.delete(id);
    };
  }

  /** Opens a page of this size in CSS pixels; with `webgpu`, on a GPU that is a program on the processor. */
  static async open(
    { path, env }: Chromium,
    { webgpu = false, ...size }: { width: number; height: number; webgpu?: boolean },
  ): Promise<Page> {
    const profile = await Deno.makeTempDir();
    const flags = ["--headless", "--no-sandbox", "--remote-debugging-port=0", "--hide-scrollbars"];
    flags.push(...webgpu ? ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"] : ["--disable-gpu"]);
    const child = new Deno.Command(path, {
      args: [...flags, `--user-data-dir=${profile}`, "about:blank"],
      env,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const socket = new WebSocket(await debuggerOf(child));
    await new Promise((resolve, reject) => (socket.onopen = resolve, socket.onerror = reject));
    const page = new Page(child, profile, socket);
    const { targetId } = await page.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await page.send("Target.attachToTarget", { targetId, flatten: true });
    page.#session = sessionId as string;
    await page.send("Emulation.setDeviceMetricsOverride", { ...size, deviceScaleFactor: 1, mobile: false });
    return page;
  }

  /** Sends one command of the protocol. A browser that does not answer it at all hangs, and is an error. */
  async send(method: string, params: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    const id = ++this.#lastId, waiting = Promise.withResolvers<Record<string, unknown>>();
    const limit = () => waiting.reject(new Error(`The browser did not answer ${method} in five minutes.`));
    const timer = setTimeout(limit, 300_000);
    this.#waiting.set(id, waiting);
    this.socket.send(JSON.stringify({ id, method, params, sessionId: this.#session }));
    return await waiting.promise.finally(() => clearTimeout(timer));
  }

  /** The value of an expression in the page, which may be a promise. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    }) as { result: { value: T }; exceptionDetails?: { exception?: { description?: string } } };
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? "the page threw");
    return result.value;
  }

  /**
   * Waits until an expression is true in the page, and gives its value. Its error says what was waited for. The limit ends
   * what hangs; it is no judgement of a machine that is busy.
   */
  async until<T>(what: string, expression: string, seconds = 180): Promise<T> {
    for (const end = performance.now() + seconds * 1000; performance.now() < end;) {
      const value = await this.evaluate<T | false>(expression).catch(() => false as const);
      if (value) return value;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await this.screenshot("results/browser_failure.png");
    throw new Error(`The page had no ${what} after ${seconds} s; see results/browser_failure.png.`);
  }

  /** Clicks in the middle of the first element that a selector finds and whose text is `text`, as a mouse does. */
  async click(selector: string, text?: string): Promise<void> {
    const find = `[...document.querySelectorAll(${JSON.stringify(selector)})]
      .find((one) => ${text === undefined} || one.textContent.trim() === ${JSON.stringify(text)})`;
    // It must be there, on top, in use, and where it was a moment ago: an application may still be arranging itself.
    const where = `(() => {
      const one = ${find}, { x, y, width, height } = one.getBoundingClientRect();
      const middle = { x: x + width / 2, y: y + height / 2 };
      const usable = !one.disabled && one.ariaDisabled !== "true";
      return usable && one.contains(document.elementFromPoint(middle.x, middle.y)) && middle;
    })()`;
    const { x, y } = await this.until<{ x: number; y: number }>(
      `${selector} ${text ?? ""} to click on`,
      `(async () => {
      const before = ${where};
      await new Promise((resolve) => setTimeout(resolve, 300));
      const now = ${where};
      return before && now && before.x === now.x && before.y === now.y && now;
    })()`,
    );
    const left = { x, y, button: "left", clickCount: 1 };
    await this.send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
    await this.send("Input.dispatchMouseEvent", { type: "mousePressed", buttons: 1, ...left });
    await this.send("Input.dispatchMouseEvent", { type: "mouseReleased", ...left });
  }

  /** Writes what the page shows into a PNG file. */
  async screenshot(path: string, clip?: { x: number; y: number; width: number; height: number }): Promise<void> {
    const { data } = await this.send("Page.captureScreenshot", clip && { clip: { ...clip, scale: 1 } });
    await Deno.mkdir("results", { recursive: true });
    await Deno.writeFile(path, Uint8Array.fromBase64(data as string));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.socket.onclose = resolve);
    this.socket.close();
    this.child.kill();
    await Promise.all([closed, this.child.status, this.child.stderr.cancel().catch(() => {})]);
    await Deno.remove(this.profile, { recursive: true }).catch(() => {});
  }
}

/** The address that a browser says its debugger has. */
async function debuggerOf(child: Deno.ChildProcess): Promise<string> {
  const reader = child.stderr.getReader();
  for (let stderr = "";;) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`Chromium did not start: ${stderr}`);
    stderr += new TextDecoder().decode(value);
    const address = stderr.match(/DevTools listening on (ws:\S+)/)?.[1];
    if (!address) continue;
    reader.releaseLock();
    return address;
  }
}
