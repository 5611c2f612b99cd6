/** Errors in the shape of OpenAI's API. */

import { QueueFull, TooLarge } from "../engine/engine.ts";

/** What a client reads of an error. */
export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null };
}

/** Which field is at fault, and a word for programs. */
export interface ErrorDetails {
  param?: string;
  code?: string;
  cause?: unknown;
}

/** Something went wrong, and this is what the client is to know of it. `JSON.stringify` gives an {@link ErrorBody}. */
export class ApiError extends Error {
  override name = "ApiError";
  readonly param: string | null;
  readonly code: string | null;

  /** `status` as in HTTP, whatever carries the answer. */
  constructor(readonly status: number, message: string, { param, code, cause }: ErrorDetails = {}) {
    super(message, { cause });
    [this.param, this.code] = [param ?? null, code ?? null];
  }

  /** OpenAI's word for its kind, which follows from the status. */
  get type(): string {
    if (this.status === 401) return "authentication_error";
    if (this.status === 429) return "rate_limit_error";
    return this.status < 500 ? "invalid_request_error" : "server_error";
  }

  /** The body of the answer. */
  toJSON(): ErrorBody {
    const { message, type, param, code } = this;
    return { error: { message, type, param, code } };
  }
}

/**
 * What a client is to know of anything that was thrown: of what it can mend the message, of our own mistakes only that there
 * was one (its `cause` is what was thrown).
 */
export function apiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  const as = (status: number, code?: string, text = message) => new ApiError(status, text, { code, cause: error });
  if (error instanceof QueueFull) return as(429, "queue_full");
  if (error instanceof TooLarge) return as(422, "out_of_memory");
  if (error instanceof RangeError || error instanceof TypeError) return as(400);
  if (name === "AbortError") return as(499, "cancelled");
  return as(
    500,
    undefined,
    "The request failed by a mistake of the server's. Try again; if it fails again, report it.",
  );
}

/** The answer to `/v1/chat/completions`. */
export function noChatTemplate(): ApiError {
  return new ApiError(
    400,
    "Cannot answer a chat: the model's tokenizer has no chat template. Write the conversation as one prompt and use " +
      "/v1/completions.",
    { param: "messages", code: "no_chat_template" },
  );
}
