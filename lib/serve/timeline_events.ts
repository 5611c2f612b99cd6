/** `GET /timeline`: the steps of the engine as they happen, for a page that shows them. */

import { EventStream } from "./event_stream.ts";
import { eventResponse } from "./completions.ts";
import type { Service } from "./service.ts";

/**
 * First an event `engine` with what the engine is and holds, then an event `step` for each step. Steps that a slow reader
 * has no room for are left out: their numbers tell.
 */
export function timelineEvents(service: Service): Response {
  const { engine, model } = service.loaded;
  const following = service.follow(() => end());
  const stream = new EventStream({ ...service.limits, onGone: () => end() });
  const listening = engine.timeline.listen((step) => {
    if (!stream.full) void stream.send(JSON.stringify(step), "step");
  });
  const end = () => {
    listening[Symbol.dispose]();
    following[Symbol.dispose]();
    stream.close();
  };
  const { limits, waiting, seated } = engine, { name, config: { n_positions } } = model;
  void stream.send(
    JSON.stringify({ model: name, contextTokens: n_positions, limits, waiting, seated, nowMs: performance.now() }),
    "engine",
  );
  return eventResponse(stream);
}
