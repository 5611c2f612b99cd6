/**
 * `POST /crowd`, for the live page: many completions over one connection, since a browser opens no more than six to a server.
 * Each is an event when it has ended.
 */

import * as z from "zod";
import { completionRequest, submitCompletion } from "../openai/completion_request.ts";
import { ApiError } from "../openai/error.ts";
import { mapAsEnded } from "../util/map_as_ended.ts";
import { eventResponse, finish } from "./completions.ts";
import { EventStream } from "./event_stream.ts";
import type { Service, Work } from "./service.ts";

/** Bodies for `/v1/completions`, and how many of them are under way at most. */
const Crowd = z.object({
  at_once: z.int().min(1).max(256),
  bodies: z.array(z.unknown()).min(1).max(256),
});

/** What the page hears of one that has ended: its tokens, milliseconds to the first, and milliseconds a token after it. */
interface Passenger {
  tokens: number;
  ttft: number;
  tpot?: number;
}

/** Sends a crowd on its way. Throws an {@link ApiError} for a body that is no crowd; what is wrong with one of it, an event tells. */
export async function crowd({ request, service }: { request: Request; service: Service }): Promise<Response> {
  const work = service.begin(request);
  try {
    const { data, error } = Crowd.safeParse(await work.body());
    if (error) throw new ApiError(400, `This is no crowd: ${z.prettifyError(error)}`);
    const stream = new EventStream({ ...service.limits, onGone: work.leave, signal: work.signal });
    void finish(ride(data, stream, service, work), stream).catch(() => {}) // whoever asked may have gone
      .then(() => work[Symbol.dispose]());
    return eventResponse(stream);
  } catch (error) {
    work[Symbol.dispose]();
    throw error;
  }
}

/** Answers all of a crowd. */
async function ride(
  { at_once, bodies }: z.infer<typeof Crowd>,
  stream: EventStream,
  { loaded: { engine, model }, metrics }: Service,
  { signal }: Work,
): Promise<void> {
  const one = async (body: unknown): Promise<Passenger> => {
    const asked = await completionRequest(body, model);
    const [answer] = submitCompletion(engine, asked, { signal });
    const { tokens } = await answer.result, { asked: start, firstToken = start, lastToken = start } = answer.times;
    metrics.answered(answer);
    const decoded = tokens.length - 1;
    return {
      tokens: tokens.length,
      ttft: firstToken - start,
      ...decoded > 0 && { tpot: (lastToken - firstToken) / decoded },
    };
  };
  const passengers = mapAsEnded(bodies, Math.min(at_once, engine.limits.maxQueue), one);
  for await (const passenger of passengers) await stream.send(JSON.stringify(passenger));
}
