/** Bodies of requests, within their limits. */

import { ApiError } from "../openai/error.ts";
import { parseJson } from "../util/json.ts";

/** What a body may take. */
export interface BodyLimits {
  bytes: number;
  /** From its first byte to its last. */
  milliseconds: number;
}

/**
 * Reads a body as JSON. Throws an {@link ApiError}: 413 if it is larger than allowed (of what follows no more is read), 408 if
 * it is slower, 400 if it is not JSON.
 */
export async function readJson(request: Request, { bytes, milliseconds }: BodyLimits): Promise<unknown> {
  const tooLarge = () =>
    new ApiError(413, `Cannot read the body: it has more than ${bytes} bytes. Send several requests.`, {
      code: "body_too_large",
    });
  if (Number(request.headers.get("content-length") ?? 0) > bytes) throw tooLarge();
  const reader = request.body?.getReader(), chunks: Uint8Array[] = [];
  let length = 0, late = false;
  const timer = setTimeout(() => {
    late = true;
    reader?.cancel().catch(() => {});
  }, milliseconds);
  try {
    for (let part; (part = await reader?.read()) && !part.done;) {
      chunks.push(part.value);
      if ((length += part.value.length) > bytes) throw tooLarge();
    }
  } catch (error) {
    reader?.cancel().catch(() => {});
    throw error instanceof ApiError ? error : new DOMException("The client went away.", "AbortError");
  } finally {
    clearTimeout(timer);
  }
  if (late) throw new ApiError(408, "Cannot read the body: it took too long to come.", { code: "body_too_slow" });
  return parsed(chunks, length);
}

function parsed(chunks: readonly Uint8Array[], length: number): unknown {
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  try {
    return parseJson(new TextDecoder("utf-8", { fatal: true }).decode(whole));
  } catch (cause) {
    const reason = cause instanceof SyntaxError ? "not JSON" : "not UTF-8";
    throw new ApiError(400, `Cannot read the body: it is ${reason}.`, { code: "invalid_json", cause });
  }
}
