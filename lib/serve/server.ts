/**
 * A server with OpenAI's completions API over one engine.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { AutoModelForCausalLM, AutoTokenizer, Engine } from "../mod.ts";
 * import { serve } from "./server.ts";
 *
 * using model = await AutoModelForCausalLM.fromPretrained("models/small");
 * const tokenizer = await AutoTokenizer.fromPretrained("models/small");
 * await using engine = new Engine({ model, maxBatch: 8 });
 * await using server = serve({ engine, model: { name: "small", config: model.config, tokenizer } }, { port: 0 });
 * const body = JSON.stringify({ prompt: "Call me", max_tokens: 5 });
 * const answer = await fetch(`${server.url}/v1/completions`, { method: "POST", body });
 * assert.equal((await answer.json()).object, "text_completion");
 * ```
 *
 * @module
 */

import { routes } from "./app.ts";
import { type Loaded, type LogEntry, Service } from "./service.ts";

export type { ServedModel } from "../openai/completion_request.ts";
export type { Loaded, LogEntry } from "./service.ts";

/** How to serve. */
export interface ServeOptions {
  /** Where to listen. Default: `127.0.0.1`, which is this machine only. */
  host?: string;
  /** Default: 8000. 0 takes a free one. */
  port?: number;
  /** Keys, one of which a client must send. Default: none is needed. */
  apiKeys?: readonly string[];
  /** Sites whose pages may ask: `https://example.org`, or `*` for all. Default: the server's own. */
  allowOrigins?: readonly string[];
  /** The largest body. Default: 1 MiB. */
  maxBodyBytes?: number;
  /** The longest that a request may take, its wait included. Default: 600. */
  requestTimeoutSeconds?: number;
  /** The longest that a body may take to come, and that a reader may take nothing of what waits for him. Default: 30. */
  idleTimeoutSeconds?: number;
  /** Hears of each request when it is answered. Default: nobody does. */
  log?: (entry: LogEntry) => void;
}

/** A server that listens. */
export interface Server extends AsyncDisposable {
  /** `http://127.0.0.1:8000`. */
  readonly url: string;
  /** Resolves when the model is loaded, from when on `/health` says so. Rejects as loading does. */
  readonly ready: Promise<void>;
  /** Takes no more requests, answers those that it has, and then closes; `/health` says at once that it is not ready. */
  drain(): Promise<void>;
  /** Closes all connections and cancels what is under way. The engine is the caller's, and ends with it. */
  [Symbol.asyncDispose](): Promise<void>;
}

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1)$/i;

/**
 * Listens at once, and answers with 503 until the model is loaded. Throws what `Deno.serve` throws, such as
 * `Deno.errors.AddrInUse`.
 */
export function serve(loading: Loaded | Promise<Loaded>, options: ServeOptions = {}): Server {
  const { host = "127.0.0.1", port = 8000, apiKeys = [], allowOrigins = [], log = () => {} } = options;
  const { maxBodyBytes = 2 ** 20, requestTimeoutSeconds = 600, idleTimeoutSeconds = 30 } = options;
  const idleMilliseconds = 1000 * idleTimeoutSeconds;
  const service = new Service(
    { keys: apiKeys, origins: allowOrigins, loopback: LOOPBACK.test(host) },
    {
      body: { bytes: maxBodyBytes, milliseconds: idleMilliseconds },
      requestMilliseconds: 1000 * requestTimeoutSeconds,
      idleMilliseconds,
    },
    log,
  );
  const app = routes(service), closing = new AbortController();
  const http = Deno.serve(
    { hostname: host, port, signal: closing.signal, onListen: () => {} },
    (request) => app.fetch(request),
  );
  const ready = Promise.resolve(loading).then((loaded) => service.open(loaded));
  ready.catch(() => {}); // who awaits it hears it
  let open = true;
  const closed = http.finished.then(() => void (open = false));
  const closeNow = () => {
    if (open) closing.abort(); // throws where it is closed
  };
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${http.addr.port}`,
    ready,
    async drain() {
      service.close();
      const loaded = await Promise.resolve(loading).catch(() => undefined);
      await loaded?.engine.drain();
      service.dismissFollowers();
      const timer = setTimeout(closeNow, idleMilliseconds); // for who does not read the end of his answer
      await http.shutdown().finally(() => clearTimeout(timer));
    },
    async [Symbol.asyncDispose]() {
      service.close();
      service.dismissFollowers();
      closeNow();
      await closed;
    },
  };
}
