/**
 * HTTP on a port, with limits that hold before a request is understood. It is Node's, because `Deno.serve` bounds neither
 * connections nor the time for headers.
 */

import { createServer, STATUS_CODES } from "node:http";
import { type AddressInfo, Server as TcpServer } from "node:net";
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
 * Which share of the files that a process may still open connections may take, and with how many of them the port is opened
 * anew. Many are taken at once before one is counted, and when a process can open no more files, Deno takes nobody from that
 * port ever again.
 */
const FILES_CONNECTED = 1 / 2, FILES_CROWDED = 3 / 4;

/** After how long: by then the files of connections that were hung up on are closed. */
const REOPEN_MILLISECONDS = 100;

/** Listens. Rejects as Node.js does, with a `code` such as `EADDRINUSE`, and with a RangeError about too many connections. */
export async function listen(
  answer: (request: Request) => Response | Promise<Response>,
  { host, port, maxConnections, idleMilliseconds }: ListenOptions,
): Promise<Listening> {
  const files = await filesLeft(), room = Math.floor(files * FILES_CONNECTED);
  if (maxConnections !== undefined && maxConnections > room) {
    throw new RangeError(
      `Cannot hold ${maxConnections} connections: of the ${files} files that this process may still open, ${room} are ` +
        "for them. Allow more files (ulimit -n, LimitNOFILE) or fewer connections.",
    );
  }
  const listener = getRequestListener(answer, {
    overrideGlobalObjects: false,
    errorHandler: () => Response.json(refusal(400), { status: 400 }), // such as a `Host` that is none
  });
  let connected = 0, answering = 0, closing = false;
  const answered = Promise.withResolvers<void>(), closed = Promise.withResolvers<void>();
  const settle = () => {
    if (closing && answering === 0) answered.resolve();
    if (closing && connected === 0) closed.resolve();
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
  const at = { host, port, backlog: Math.min(511, Math.floor(files / 8)) };
  let opening = false;
  const reopen = () => {
    if (server.listening || opening) return;
    opening = true;
    setTimeout(() => !closing && server.listen(at), REOPEN_MILLISECONDS);
  };
  const most = maxConnections ?? Math.min(4096, room);
  server.on("connection", (socket) => {
    connected++;
    socket.once("close", () => {
      connected--;
      if (connected <= most) reopen();
      settle();
    });
    if (connected > most) socket.destroy();
    if (connected > files * FILES_CROWDED && server.listening) TcpServer.prototype.close.call(server);
  });
  server.on("clientError", ({ code }: NodeJS.ErrnoException, socket) => {
    if (!socket.writable) return void socket.destroy();
    const status = code === "HPE_HEADER_OVERFLOW" ? 431 : code === "ERR_HTTP_REQUEST_TIMEOUT" ? 408 : 400;
    const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, "content-type: application/json", "connection: close"];
    socket.end(`${head.join("\r\n")}\r\n\r\n${JSON.stringify(refusal(status))}`, () => socket.destroy());
  });
  await new Promise<unknown>((resolve, reject) => server.once("listening", resolve).once("error", reject).listen(at));
  at.port = (server.address() as AddressInfo).port;
  server.on("listening", () => {
    opening = false;
    if (closing) server.close();
  });
  server.on("error", (error) => {
    console.error(error); // and it goes on
    opening = false;
    reopen();
  });
  return {
    port: at.port,
    async close(milliseconds) {
      closing = true;
      if (server.listening) server.close();
      settle();
      const timer = setTimeout(answered.resolve, milliseconds);
      await answered.promise;
      clearTimeout(timer);
      server.closeAllConnections();
      await closed.promise;
    },
  };
}

/** How many files this process may open besides those that it has, where the system says so. */
async function filesLeft(): Promise<number> {
  const limits = await Deno.readTextFile("/proc/self/limits").catch(() => "");
  const most = limits.match(/^Max open files +(\d+)/m)?.[1];
  return most === undefined ? Infinity : Number(most) - [...Deno.readDirSync("/proc/self/fd")].length;
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
