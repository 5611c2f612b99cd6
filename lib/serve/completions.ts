/** `POST /v1/completions`: one answer as JSON, or as events while it is made. */

import type { Answering } from "../engine/job.ts";
import { completion, completionHead, streamCompletion } from "../openai/completion.ts";
import { type CompletionRequest, completionRequest, submitCompletion } from "../openai/completion_request.ts";
import { ApiError, apiError } from "../openai/error.ts";
import { EventStream } from "./event_stream.ts";
import type { LogEntry, Service } from "./service.ts";

/** A request that is being answered. */
export interface Exchange {
  service: Service;
  request: Request;
  /** What is to be logged of it. */
  entry: Partial<LogEntry>;
  /** To be called when a stream has ended, which is after its answer has begun. Others end with their answer. */
  ended: (error?: unknown) => void;
}

/** Answers. Throws an {@link ApiError} as long as nothing was sent; a stream tells of later ones in an event. */
export async function completions(exchange: Exchange): Promise<Response> {
  const { service, request, entry } = exchange, { limits } = service, work = service.begin(request);
  let answers: Answering[] = [];
  const end = () => {
    for (const answer of answers) if (answer.answer.finishReason) service.metrics.answered(answer);
    Object.assign(entry, taken(answers));
    work[Symbol.dispose]();
  };
  try {
    const { engine, model } = service.loaded;
    const asked = await completionRequest(await work.body(), model), head = completionHead(model);
    Object.assign(entry, { id: head.id, stream: asked.stream, ...size(asked) });
    checkSize(asked, engine.limits.maxQueue);
    answers = submitCompletion(engine, asked, { signal: work.signal });
    if (asked.stream) {
      const stream = new EventStream({ ...limits, onGone: work.leave, signal: work.signal });
      const sending = streamCompletion(head, asked, answers, (chunk) => stream.send(JSON.stringify(chunk)));
      void finish(sending, stream).catch((error) => error).then((error) => {
        end();
        exchange.ended(error);
      });
      return eventResponse(stream, inTimeline(answers));
    }
    const results = await Promise.all(answers.map(({ result }) => result));
    const response = Response.json(completion(head, asked, results), { headers: inTimeline(answers) });
    end();
    return response;
  } catch (error) {
    end();
    throw error;
  }
}

/** Events as the answer to a request. */
export function eventResponse({ body }: EventStream, headers: Record<string, string> = {}): Response {
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache", ...headers },
  });
}

/** For a page that shows the timeline: which of its requests are the answers. */
function inTimeline(answers: readonly Answering[]): Record<string, string> {
  return { "omnibus-requests": answers.map(({ arrival }) => arrival).join() };
}

/** Ends a stream after its last event, or with what went wrong. Rejects with that. */
export async function finish(sending: Promise<void>, stream: EventStream): Promise<void> {
  try {
    await sending;
    await stream.send("[DONE]");
  } catch (error) {
    const known = apiError(error);
    if (known.status !== 499) await Promise.resolve(stream.send(JSON.stringify(known))).catch(() => {});
    throw error;
  } finally {
    stream.close();
  }
}

function checkSize({ prompts, n }: CompletionRequest, maxQueue: number): void {
  const count = prompts.length * n;
  if (count <= maxQueue) return;
  throw new ApiError(400, `Cannot give ${count} answers to one request: at most ${maxQueue} may wait at once.`, {
    param: prompts.length > 1 ? "prompt" : "n",
  });
}

function size({ prompts, n }: CompletionRequest): Partial<LogEntry> {
  const promptTokens = prompts.reduce((sum, { options }) => sum + options.prompt.length, 0);
  return { answers: prompts.length * n, promptTokens };
}

function taken(answers: readonly Answering[]): Partial<LogEntry> {
  if (answers.length === 0) return {};
  const completionTokens = answers.reduce((sum, { answer }) => sum + answer.tokens.length, 0);
  const firsts = answers.flatMap(({ times: { asked, firstToken } }) => firstToken ? [firstToken - asked] : []);
  return { completionTokens, ...firsts.length && { firstTokenSeconds: rounded(Math.min(...firsts) / 1000) } };
}

/** Seconds to the tenth of a millisecond. */
export function rounded(seconds: number): number {
  return Math.round(seconds * 1e4) / 1e4;
}
