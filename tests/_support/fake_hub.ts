/**
 * A model hub on this machine, for tests: lists and serves one repository, large files from a second server at another
 * port, as the real one does from another host. It behaves, unless a test tells it how not to.
 */

import { createHash } from "node:crypto";

/** A request that arrived. */
export interface Seen {
  /** Which of the two servers got it. */
  server: "hub" | "storage";
  /** The path, without the query. */
  path: string;
  /** What comes after the last slash. */
  file: string;
  authorization: string | null;
  range: string | null;
  ifRange: string | null;
}

/** What goes wrong with one answer. */
export interface Fault {
  /** This status, and no content. */
  status?: number;
  headers?: Record<string, string>;
  /** Other content than the file's, or the whole JSON of a listing. */
  body?: Uint8Array | string;
  /** The connection breaks after so many bytes. */
  cutAfter?: number;
  /** Nothing comes after so many bytes. */
  stallAfter?: number;
  /** Milliseconds before each chunk of 64 kB. */
  slow?: number;
  /** Milliseconds before each byte of a listing. */
  trickle?: number;
  /** The whole file, whatever was asked for. */
  ignoreRange?: boolean;
}

/** What the repository is and how it is kept. */
export interface FakeHubOptions {
  repository?: string;
  commit?: string;
  /** Names of files that the second server has. Default: what ends in `.safetensors`. */
  large?: (name: string) => boolean;
}

/** One hub with one repository. */
export class FakeHub implements AsyncDisposable {
  readonly requests: Seen[] = [];
  /** Bytes of content that left the servers. */
  bytesSent = 0;
  /** Asked at each request for what shall go wrong. */
  fault: (seen: Seen) => Fault | undefined = () => undefined;
  /** Called with {@link bytesSent} after each chunk. */
  onBytes: (bytesSent: number) => void = () => {};
  readonly repository: string;
  readonly commit: string;
  /** Which files the second server has. */
  readonly isLarge: (name: string) => boolean;
  readonly #hub: Deno.HttpServer<Deno.NetAddr>;
  readonly #storage: Deno.HttpServer<Deno.NetAddr>;
  readonly #stop = new AbortController();

  /** Serves `files`, a map that tests may change. */
  constructor(readonly files: Map<string, Uint8Array>, options: FakeHubOptions = {}) {
    this.repository = options.repository ?? "tester/tiny";
    this.commit = options.commit ?? "c0ffee".padEnd(40, "0");
    this.isLarge = options.large ?? ((name) => name.endsWith(".safetensors"));
    const serve = (server: "hub" | "storage") =>
      Deno.serve(
        { port: 0, hostname: "127.0.0.1", signal: this.#stop.signal, onListen() {}, onError: () => new Response() },
        (request) => this.#answer(server, request),
      );
    this.#hub = serve("hub");
    this.#storage = serve("storage");
  }

  /** For HF_ENDPOINT. */
  get endpoint(): string {
    return `http://127.0.0.1:${this.#hub.addr.port}`;
  }

  /** Where large files are. */
  get storage(): string {
    return `http://127.0.0.1:${this.#storage.addr.port}`;
  }

  /** The requests for files, in order, by name. */
  get downloads(): string[] {
    return this.requests.filter(({ path }) => !path.startsWith("/api/")).map(({ file }) => file);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#hub.finished, this.#storage.finished]);
  }

  #answer(server: "hub" | "storage", { url, headers }: Request): Response {
    const { pathname } = new URL(url);
    const path = decodeURIComponent(pathname);
    const [authorization, range, ifRange] = ["authorization", "range", "if-range"].map((name) => headers.get(name));
    const seen = { server, path, file: path.split("/").at(-1)!, authorization, range, ifRange };
    this.requests.push(seen);
    const fault = this.fault(seen) ?? {};
    if (fault.status && fault.status !== 206) {
      return new Response(null, { status: fault.status, headers: fault.headers });
    }
    if (path.startsWith("/api/")) return this.#listing(fault);
    return server === "hub" ? this.#resolve(seen, fault) : this.#content(seen, fault);
  }

  #listing(fault: Fault): Response {
    const siblings = [...this.files].map(([rfilename, bytes]) => ({
      rfilename,
      size: bytes.length,
      blobId: gitChecksum(bytes),
      ...this.isLarge(rfilename) && { lfs: { sha256: sha256(bytes), size: bytes.length, pointerSize: 134 } },
    }));
    const text = fault.body as string ?? JSON.stringify({ id: this.repository, sha: this.commit, siblings });
    return new Response(fault.trickle ? trickle(text, fault.trickle) : text);
  }

  #resolve(seen: Seen, fault: Fault): Response {
    const bytes = this.files.get(seen.file);
    const known = seen.path === `/${this.repository}/resolve/${this.commit}/${seen.file}`;
    if (!bytes || !known) return new Response(null, { status: 404, headers: { "x-error-code": "EntryNotFound" } });
    const facts = { "x-repo-commit": this.commit };
    if (!this.isLarge(seen.file)) return this.#content(seen, fault, { ...facts, etag: `"${gitChecksum(bytes)}"` });
    return new Response(null, {
      status: 302,
      headers: {
        ...facts,
        "x-linked-etag": `"${sha256(bytes)}"`,
        "x-linked-size": String(bytes.length),
        "location": `${this.storage}/blobs/${seen.file}?X-Signature=s3cr3t`,
        ...fault.headers,
      },
    });
  }

  #content(seen: Seen, fault: Fault, headers: Record<string, string> = {}): Response {
    const bytes = typeof fault.body === "string" ? new TextEncoder().encode(fault.body) : fault.body ??
      this.files.get(seen.file);
    if (!bytes) return new Response(null, { status: 404 });
    const all = { "etag": `"storage-${sha256(bytes).slice(0, 8)}"`, ...headers, ...fault.headers };
    const from = Number(/^bytes=(\d+)-$/.exec(seen.range ?? "")?.[1] ?? 0);
    const partial = seen.range !== null && !fault.ignoreRange && (seen.ifRange ?? all.etag) === all.etag;
    if (partial && from >= bytes.length) return new Response(null, { status: 416 });
    const part = partial ? bytes.subarray(from) : bytes;
    return new Response(this.#stream(part, fault), {
      status: partial ? 206 : 200,
      headers: {
        "content-length": String(part.length),
        ...partial && { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` },
        ...all,
      },
    });
  }

  #stream(bytes: Uint8Array, { cutAfter = Infinity, stallAfter = Infinity, slow = 0 }: Fault): ReadableStream {
    let sent = 0;
    return new ReadableStream({
      pull: async (controller) => {
        if (sent >= cutAfter) return controller.error(new Error("cut, as the test wants it"));
        if (sent >= stallAfter) return await new Promise(() => {}); // until the other side gives up
        if (sent >= bytes.length) return controller.close();
        if (slow) await new Promise((resolve) => setTimeout(resolve, slow));
        const chunk = bytes.subarray(sent, Math.min(sent + 65536, cutAfter, stallAfter));
        controller.enqueue(chunk);
        sent += chunk.length;
        this.bytesSent += chunk.length;
        this.onBytes(this.bytesSent);
      },
    }, { highWaterMark: 0 });
  }
}

/** A byte at a time, so that the connection is never silent for long. */
function trickle(text: string, milliseconds: number): ReadableStream {
  const bytes = new TextEncoder().encode(text);
  let sent = 0;
  return new ReadableStream({
    async pull(controller) {
      if (sent === bytes.length) return controller.close();
      await new Promise((resolve) => setTimeout(resolve, milliseconds));
      controller.enqueue(bytes.subarray(sent, ++sent));
    },
  }, { highWaterMark: 0 });
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export function gitChecksum(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}
