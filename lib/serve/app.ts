/** The routes of a server. */

import { Hono } from "hono";
import { cors } from "hono/cors";
import { routePath } from "hono/route";
import { ApiError, apiError, noChatTemplate } from "../openai/error.ts";
import { modelList, modelNamed } from "../openai/models.ts";
import { detokenize, tokenize } from "../openai/tokenize.ts";
import { checkKey, checkOrigin } from "./access.ts";
import { completions, rounded } from "./completions.ts";
import { type LogEntry, RETRY_SECONDS, type Service } from "./service.ts";
import { crowd } from "./crowd.ts";
import { PAGE_PATHS, pageFile } from "./page.ts";
import { timelineEvents } from "./timeline_events.ts";

/** What a request's handlers share. */
interface Env {
  Variables: { entry: Partial<LogEntry>; ended: (error?: unknown) => void };
}

/** What is open without a key: whether the server is ready, and the page, which asks for the key. */
const OPEN_PATHS: readonly string[] = ["/health", ...PAGE_PATHS];

/** What Hono calls the route of what is done for all requests. */
const EVERY_ROUTE = "/*";

/** The routes, for a service. */
export function routes(service: Service): Hono<Env> {
  const app = new Hono<Env>(), { access } = service;
  app.use(async (context, next) => {
    const started = performance.now(), time = new Date().toISOString();
    const entry: Partial<LogEntry> = {};
    context.set("entry", entry);
    const done = (status: number) => {
      const { method, path } = context.req, seconds = rounded((performance.now() - started) / 1000);
      const route = routePath(context, -1); // one of few, not what a client wrote
      const known = route === EVERY_ROUTE ? "other" : route;
      service.note({ time, method, path: path.slice(0, 100), status, seconds, ...entry }, known);
    };
    context.set("ended", (error) => {
      if (error !== undefined) entry.error = errorWord(apiError(error));
      done(error === undefined ? 200 : apiError(error).status);
    });
    await next();
    if (context.req.method === "HEAD") await context.res.body?.cancel(); // Hono answers as to GET, and reads nothing
    if (!entry.stream || context.res.status !== 200) done(context.res.status);
  });
  if (access.origins.length) {
    const origin = access.origins.includes("*") ? "*" : [...access.origins];
    app.use(cors({ origin, allowHeaders: ["Authorization", "Content-Type"], allowMethods: ["GET", "POST"] }));
  }
  app.use(async ({ req }, next) => {
    checkOrigin(req.raw, access);
    if (!OPEN_PATHS.includes(req.path)) checkKey(req.raw, access);
    await next();
  });

  for (const path of PAGE_PATHS) app.get(path, () => pageFile(path));
  app.get("/health", ({ json }) => json({ status: "ok", model: service.loaded.model.name }));
  app.get("/metrics", async (context) => {
    const { text, type } = await service.metrics.text();
    return context.body(text, 200, { "content-type": type });
  });
  app.get("/timeline", () => timelineEvents(service));
  app.get("/v1/models", ({ json }) => json(modelList(service.loaded.model, service.created)));
  app.get(
    "/v1/models/:name",
    ({ req, json }) => json(modelNamed(req.param("name"), service.loaded.model, service.created)),
  );
  app.post(
    "/v1/completions",
    ({ req, get }) => completions({ service, request: req.raw, entry: get("entry"), ended: get("ended") }),
  );
  app.post("/crowd", ({ req }) => crowd({ request: req.raw, service }));
  app.post("/v1/chat/completions", () => {
    throw noChatTemplate();
  });
  for (const [path, answer] of [["/tokenize", tokenize], ["/detokenize", detokenize]] as const) {
    app.post(path, async ({ req, json }) => {
      using work = service.begin(req.raw);
      return json(answer(await work.body(), service.loaded.model));
    });
  }

  app.notFound(({ req }) => {
    throw new ApiError(404, `There is no ${req.method} ${req.path.slice(0, 100)} here.`, { code: "not_found" });
  });
  app.onError((thrown, context) => {
    const error = apiError(thrown);
    context.get("entry").error = errorWord(error);
    if (error.status === 500) console.error(thrown);
    const later = error.status === 429 || error.status === 503;
    const headers: HeadersInit = later ? { "retry-after": String(RETRY_SECONDS) } : {};
    return Response.json(error, { status: error.status, headers });
  });
  return app;
}

function errorWord({ code, type }: ApiError): string {
  return code ?? type;
}
