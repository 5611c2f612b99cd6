/**
 * HTTP on a port, with limits that hold before a request is understood. It is Node's, because `Deno.serve` bounds neither
 * connections nor the time for headers.
 */

import { createServer, STATUS_CODES } from "node:http";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { ApiError } from "../openai/error.ts";

/** Where to listen, and what connections may take. */
export interface ListenOptions {
  host: string;
  port: number;
  /** Who connects beyond them is hung up on. Default: 4096, or fewer where the system allows only fewer files. */
  maxConnections?: number;
  /** The longest for headers, as long again for a body, between two requests, and for which a reader may take nothing. */
  idleMilliseconds: number;
}

/** A port that is listened on. */
export interface Listening {
  readonly port: number;
  /** Takes no more connections, and closes those that there are when all answers are sent, at the latest after so long. */
  close(milliseconds: number): Promise<void>;
}

/**
 * Which share of the files that a process may open connections may take, and those that come at once before any is counted.
 * Where it can open no more, Deno's `node:http` accepts nobody ever again.
 */
const FILES_CONNECTED = 1 / 2, FILES_COMING = 1 / 8;

/** Listens. Rejects as Node.js does, with a `code` such as `EADDRINUSE`, and with a RangeError about too many connections. */
export async function listen(
  answer: (request: Request) => Response | Promise<Response>,
  { host, port, maxConnections, idleMilliseconds }: ListenOptions,
): Promise<Listening> {
  const files = await mostFiles(), room = Math.floor(files * FILES_CONNECTED);
  if (maxConnections !== undefined && maxConnections > room) {
    throw new RangeError(
      `Cannot hold ${maxConnections} connections: of the ${files} files that this process may open, ${room} are for ` +
        "them. Allow more files (ulimit -n, LimitNOFILE) or fewer connections.",
    );
  }
  const listener = getRequestListener(answer, {
    overrideGlobalObjects: false,
    errorHandler: () => Response.json(refusal(400), { status: 400 }), // such as a `Host` that is none
  });
  let answering = 0, closing = false;
  const answered = Promise.withResolvers<void>(), closed = Promise.withResolvers<void>();
  const settle = () => {
    if (closing && answering === 0) answered.resolve();
  };
  const server = createServer({
    headersTimeout: idleMilliseconds,
    requestTimeout: 2 * idleMilliseconds,
    keepAliveTimeout: idleMilliseconds,
    connectionsCheckingInterval: Math.min(1000, idleMilliseconds / 4),
  }, (incoming, outgoing) => {
    answering++;
    outgoing.once("prefinish", () => outgoing.socket?.setTimeout(idleMilliseconds)); // all is written: has he read it?
    outgoing.once("close", () => {
      answering--;
      settle();
    });
    return listener(incoming, outgoing);
  });
  server.maxConnections = maxConnections ?? Math.min(4096, room);
  server.on("clientError", ({ code }: NodeJS.ErrnoException, socket) => {
    if (!socket.writable) return void socket.destroy();
    const status = code === "HPE_HEADER_OVERFLOW" ? 431 : code === "ERR_HTTP_REQUEST_TIMEOUT" ? 408 : 400;
    const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, "content-type: application/json", "connection: close"];
    socket.end(`${head.join("\r\n")}\r\n\r\n${JSON.stringify(refusal(status))}`, () => socket.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    const backlog = Math.min(511, Math.floor(files * FILES_COMING));
    server.once("error", reject).listen({ port, host, backlog }, () => {
      server.off("error", reject).on("error", console.error); // it goes on
      resolve();
    });
  });
  server.once("close", closed.resolve);
  return {
    port: (server.address() as AddressInfo).port,
    async close(milliseconds) {
      if (server.listening) server.close();
      closing = true;
      settle();
      const timer = setTimeout(answered.resolve, milliseconds);
      await answered.promise;
      clearTimeout(timer);
      server.closeAllConnections();
      await closed.promise;
    },
  };
}

/** How many files this process may have open, where the system says so. */
async function mostFiles(): Promise<number> {
  const limits = await Deno.readTextFile("/proc/self/limits").catch(() => "");
  return Number(limits.match(/^Max open files +(\d+)/m)?.[1] ?? Infinity);
}

/** What is said to who sent no request that could be understood. */
function refusal(status: 400 | 408 | 431): ApiError {
  const messages = {
    400: "This is no HTTP request.",
    408: "The request took too long to come.",
    431: "The headers of the request are too long.",
  };
  return new ApiError(status, messages[status], { code: "malformed_request" });
}
