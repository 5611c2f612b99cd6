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
 * const loaded = { engine, model: { name: "small", config: model.config, tokenizer } };
 * await using server = await serve(loaded, { port: 0 });
 * const body = JSON.stringify({ prompt: "Call me", max_tokens: 5 });
 * const answer = await fetch(`${server.url}/v1/completions`, { method: "POST", body });
 * assert.equal((await answer.json()).object, "text_completion");
 * ```
 *
 * @module
 */

import { checkCount } from "../engine/limits.ts";
import { checkOrigins } from "./access.ts";
import { routes } from "./app.ts";
import { listen } from "./http.ts";
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
  /** The most connections; who comes then is hung up on. Default: 4096, or fewer where the system allows only fewer files. */
  maxConnections?: number;
  /** The largest body. Default: 1 MiB. */
  maxBodyBytes?: number;
  /** The longest that a request may take, its wait included. Default: 600. */
  requestTimeoutSeconds?: number;
  /**
   * The longest that headers may take to come, or a body, or the next request of a connection, and that a reader may take
   * nothing of what waits for him. Default: 30.
   */
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
  /** Resolves with the reason if the engine fails: all requests get 503 from then on. */
  readonly failed: Promise<string>;
  /** Takes no more requests, answers those that it has, and then closes; `/health` says at once that it is not ready. */
  drain(): Promise<void>;
  /** Closes all connections and cancels what is under way. The engine is the caller's, and ends with it. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Twice as long is what a timer holds: 2³¹ ms. */
const MOST_SECONDS = 1_000_000;

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1)$/i;

/**
 * Listens, and answers with 503 until the model is loaded. Rejects where it cannot listen, with Node's `code`: `EADDRINUSE`
 * if another program does; with a RangeError about an option that cannot be, or more connections than the system allows.
 */
export async function serve(loading: Loaded | Promise<Loaded>, options: ServeOptions = {}): Promise<Server> {
  const { port = 8000, apiKeys = [], allowOrigins = [], log = () => {} } = options;
  const { maxBodyBytes = 2 ** 20, requestTimeoutSeconds = 600, idleTimeoutSeconds = 30 } = options;
  const { maxConnections } = options, idleMilliseconds = 1000 * idleTimeoutSeconds;
  const host = (options.host ?? "127.0.0.1").replace(/^\[(.*)\]$/, "$1");
  checkCount("maxBodyBytes", maxBodyBytes);
  if (maxConnections !== undefined) checkCount("maxConnections", maxConnections);
  checkSeconds("requestTimeoutSeconds", requestTimeoutSeconds);
  checkSeconds("idleTimeoutSeconds", idleTimeoutSeconds);
  checkOrigins(allowOrigins);
  const service = new Service(
    { keys: apiKeys, origins: allowOrigins, loopback: LOOPBACK.test(host) },
    {
      body: { bytes: maxBodyBytes, milliseconds: idleMilliseconds },
      requestMilliseconds: 1000 * requestTimeoutSeconds,
      idleMilliseconds,
    },
    log,
  );
  const ready = Promise.resolve(loading).then((loaded) => service.open(loaded));
  ready.catch(() => {}); // who awaits it hears it
  const http = await listen(routes(service).fetch, { host, port, maxConnections, idleMilliseconds });
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${http.port}`,
    ready,
    failed: service.failed,
    async drain() {
      service.close();
      const loaded = await Promise.resolve(loading).catch(() => undefined);
      await loaded?.engine.drain();
      service.dismissFollowers();
      await http.close(idleMilliseconds); // for who does not read the end of his answer
    },
    async [Symbol.asyncDispose]() {
      service.close();
      service.dismissFollowers();
      await http.close(0);
    },
  };
}

function checkSeconds(name: string, seconds: number): void {
  if (seconds > 0 && seconds <= MOST_SECONDS) return;
  throw new RangeError(`Cannot use ${name} ${seconds}: it must be more than 0, and at most ${MOST_SECONDS}.`);
}
