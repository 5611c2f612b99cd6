/** One line of a batch file: what it asks for, or what is wrong with it. OpenAI's batch format. */

import type { Line } from "./lines.ts";

/** What is wrong with a line, in OpenAI's words for batches. */
export interface LineError {
  /** For programs, such as `invalid_json_line`. */
  code: string;
  /** A sentence for people. */
  message: string;
  /** The field at fault, where there is one. */
  param?: string | null;
}

/** A line, read. */
export interface Entry {
  /** The line's number in its file, from 1. */
  number: number;
  /** The name that its author gave it; null where it has none. */
  customId: string | null;
  /** What to answer: the body of a request for a completion. Undefined where there is an error. */
  body?: Record<string, unknown>;
  error?: LineError;
}

/** The one that this library answers. */
const URL = "/v1/completions";

/**
 * Reads a line. It never throws: what is wrong with a line is its `error`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { readEntry } from "./entry.ts";
 *
 * const text = '{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Call me"}}';
 * assert.deepEqual(readEntry({ number: 1, text }), { number: 1, customId: "a", body: { prompt: "Call me" } });
 * assert.equal(readEntry({ number: 2, text: "{" }).error?.code, "invalid_json_line");
 * ```
 */
export function readEntry({ number, text, problem }: Line): Entry {
  const refused = (code: string, message: string, param?: string): Entry => (
    { number, customId, error: { code, message, ...param && { param } } }
  );
  let customId: string | null = null, line: unknown;
  if (text === undefined) return refused("invalid_json_line", `This line ${problem}.`);
  try {
    line = JSON.parse(text);
  } catch (error) {
    return refused("invalid_json_line", `This line is no JSON: ${(error as Error).message}.`);
  }
  if (!isObject(line)) return refused("invalid_json_line", "This line is no JSON object.");
  const { custom_id, method, url, body } = line;
  if (typeof custom_id !== "string" || custom_id === "") {
    return refused("invalid_custom_id", "custom_id must be a text: it names the answer.", "custom_id");
  }
  customId = custom_id;
  if (method !== "POST") return refused("invalid_method", `method must be POST: it is ${show(method)}.`, "method");
  if (url !== URL) return refused("invalid_url", `url must be ${URL}: it is ${show(url)}.`, "url");
  if (!isObject(body)) return refused("invalid_request", `body must be an object: it is ${show(body)}.`, "body");
  return { number, customId, body };
}

/** An entry whose name another line had before. */
export function asDuplicate({ number, customId }: Entry): Entry {
  const message = `custom_id ${show(customId)} stands in a line before this one, and only that is answered.`;
  return { number, customId, error: { code: "duplicate_custom_id", message, param: "custom_id" } };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
