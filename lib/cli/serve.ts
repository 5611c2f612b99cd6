/** `deno task serve`: OpenAI's completions API for one model. */

import { serve, type Server } from "../serve/server.ts";
import { print } from "../util/print.ts";
import { run, UsageError, userPath, wholeNumber } from "./command.ts";
import { engineFlags, engineLimits, openEngine } from "./engine_flags.ts";
import { modelFlags } from "./model_flags.ts";

/** Where a key may be given besides the file. */
const KEY_VARIABLE = "OMNIBUS_API_KEY";

await run({
  name: "serve",
  summary: "Serves a model over HTTP, with OpenAI's completions API. lib/serve/README.md says how to run it.",
  flags: {
    ...modelFlags,
    "served-model-name": { type: "string", value: "NAME", help: "what clients call it (default: its folder's name)" },
    host: { type: "string", value: "HOST", help: "where to listen (default 127.0.0.1, this machine only)" },
    port: { type: "string", value: "N", help: "default 8000; 0 takes a free one" },
    ...engineFlags,
    "max-queue": { type: "string", value: "N", help: "the most requests that wait (default 1024)" },
    "max-connections": { type: "string", value: "N", help: "the most connections (default 4096)" },
    "max-body-bytes": { type: "string", value: "N", help: "the largest body of a request (default 1048576)" },
    "request-timeout": { type: "string", value: "S", help: "seconds that a request may take (default 600)" },
    "idle-timeout": {
      type: "string",
      value: "S",
      help: "seconds for headers, for a body, between requests, and for a reader that stalls (default 30)",
    },
    "api-key-file": { type: "string", value: "FILE", help: `keys, one a line, for clients (or in ${KEY_VARIABLE})` },
    "allow-origin": {
      type: "string",
      multiple: true,
      value: "URL",
      help: "a site whose pages may ask, or * (default: this server's own)",
    },
  },
}, async (flags) => {
  const { host = "127.0.0.1" } = flags, port = wholeNumber(flags.port, "port", 8000, 0);
  if (port > 65535) throw new UsageError(`--port must be 65535 or less: it is "${port}".`);
  const count = (name: "max-queue" | "max-connections" | "max-body-bytes") =>
    flags[name] === undefined ? undefined : wholeNumber(flags[name], name, 1);
  const limits = { ...engineLimits(flags), maxQueue: count("max-queue") };
  const apiKeys = await readKeys(flags["api-key-file"]);
  const options = {
    ...{ host, port, apiKeys, allowOrigins: flags["allow-origin"], maxConnections: count("max-connections") },
    maxBodyBytes: count("max-body-bytes"),
    requestTimeoutSeconds: wholeNumber(flags["request-timeout"], "request-timeout", 600),
    idleTimeoutSeconds: wholeNumber(flags["idle-timeout"], "idle-timeout", 30),
    log: (entry: object) => print(`${JSON.stringify(entry)}\n`),
  };
  const loading = openEngine(flags, limits, flags["served-model-name"]).then(async (opened) => {
    await opened.engine.warmUp();
    return opened;
  });
  const server = await serve(loading, options).catch((error) => {
    if (error instanceof RangeError) throw new UsageError(error.message);
    const why = error.code === "EADDRINUSE" ? "another program does. Take another --port" : error.message;
    throw new UsageError(`Cannot listen on ${host}:${port}: ${why}.`);
  });
  const ended = endOnSignals(server);
  await server.ready;
  console.error(`${server.url}/v1 answers.${apiKeys.length ? "" : openTo(server)}`);
  const failure = await Promise.race([ended, server.failed]);
  if (failure) throw new Error(`The engine has ended: ${failure}`); // whoever started this can do so again
  Deno.exit(0);
});

/** Resolves when the first SIGTERM or SIGINT was heard and all requests are answered. The second one ends at once. */
function endOnSignals(server: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    let heard = 0;
    const end = () => {
      if (++heard > 1) Deno.exit(1);
      console.error("No more requests are taken; those that are here are answered. A second signal ends at once.");
      server.drain().then(resolve, reject);
    };
    for (const signal of Deno.build.os === "windows" ? ["SIGINT"] as const : ["SIGINT", "SIGTERM"] as const) {
      Deno.addSignalListener(signal, end);
    }
  });
}

async function readKeys(file: string | undefined): Promise<string[]> {
  const given = Deno.env.get(KEY_VARIABLE)?.trim();
  if (given === "") throw new UsageError(`${KEY_VARIABLE} is set and has no key: write one, or unset it.`);
  if (file === undefined) return given ? [given] : [];
  const text = await Deno.readTextFile(userPath(file)).catch((error) => {
    throw new UsageError(`Cannot read --api-key-file: ${error.message}.`);
  });
  const keys = text.split("\n").map((line) => line.trim()).filter((line) => line !== "");
  if (keys.length === 0) throw new UsageError(`--api-key-file has no key: write one a line into ${userPath(file)}.`);
  return given ? [given, ...keys] : keys;
}

function openTo({ url }: Server): string {
  return /^http:\/\/(localhost|127\.[\d.]+|\[::1\]):/.test(url)
    ? ""
    : " Whoever reaches it may ask: see --api-key-file.";
}
