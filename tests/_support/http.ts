/** A server over the small model, and requests that no client library would send. */

import { Engine, type EngineOptions } from "../../lib/engine/engine.ts";
import type { GPT2 } from "../../lib/gpt2/model.ts";
import { loadGPT2 } from "../../lib/pretrained.ts";
import { type LogEntry, serve, type ServeOptions, type Server } from "../../lib/serve/server.ts";
import { AutoTokenizer, type Tokenizer } from "../../lib/tokenizer/tokenizer.ts";
import { nextTurn } from "../../lib/util/turn.ts";
import { workingBackends } from "./backends.ts";

/** A server, and what is behind it. */
export interface Served extends AsyncDisposable {
  server: Server;
  engine: Engine;
  model: GPT2;
  tokenizer: Tokenizer;
  log: LogEntry[];
  /** Posts a body as JSON. */
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
}

/** Serves the small model on a free port. */
export async function served(options: ServeOptions & Partial<EngineOptions> = {}): Promise<Served> {
  const { working: [backend] } = await workingBackends();
  const model = await loadGPT2("models/small", { backend }),
    tokenizer = await AutoTokenizer.fromPretrained("models/small");
  const { maxBatch = 8, maxQueue, kvCacheBytes } = options;
  const engine = new Engine({ model, maxBatch, maxQueue, kvCacheBytes }), log: LogEntry[] = [];
  const loaded = { engine, model: { name: "small", config: model.config, tokenizer } };
  const server = await serve(loaded, { port: 0, log: (entry) => log.push(entry), ...options });
  await server.ready;
  return {
    ...{ server, engine, model, tokenizer, log },
    post: (path, body, init) => fetch(server.url + path, { method: "POST", body: JSON.stringify(body), ...init }),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await engine[Symbol.asyncDispose]();
      model[Symbol.dispose]();
    },
  };
}

/** Waits, a turn of the event loop after the other, until something is so. */
export async function until(what: () => boolean): Promise<void> {
  while (!what()) await nextTurn();
}

/** A connection of one's own to a server. */
export async function connect(server: Server): Promise<Deno.TcpConn> {
  const { hostname, port } = new URL(server.url);
  return await Deno.connect({ hostname, port: Number(port) });
}

/**
 * Sends bytes over a connection of its own, and gives what comes back until the other side closes, or has said enough. With
 * `halfClose` no more can follow the bytes, and the server is told so.
 */
export async function exchange(
  server: Server,
  bytes: Uint8Array | string,
  enough: (text: string) => boolean = (text) => text.includes("\r\n\r\n"),
  { halfClose = false } = {},
): Promise<string> {
  using connection = await connect(server);
  const data = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes;
  const sending = (async () => {
    for (let at = 0; at < data.length;) at += await connection.write(data.subarray(at, at + 65536));
    if (halfClose) await connection.closeWrite();
  })().catch(() => {}); // the server may have closed it
  let text = "";
  const buffer = new Uint8Array(65536), decoder = new TextDecoder();
  try {
    for (let n; !enough(text) && (n = await connection.read(buffer)) !== null;) {
      text += decoder.decode(buffer.subarray(0, n), { stream: true });
    }
  } catch { /* it was reset: closed */ }
  if (enough(text) || text !== "") return text;
  await sending;
  return text;
}
