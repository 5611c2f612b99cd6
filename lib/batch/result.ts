/** One line of a batch's output, in OpenAI's format. */

import type { LineError } from "./entry.ts";

/** What came of an entry: a response of the API, or an error. */
export type Outcome =
  | { response: { status_code: 200; request_id: string; body: Record<string, unknown> }; error: null }
  | { response: null; error: LineError & { line: number } };

/** A line of the output. */
export type Result = {
  /** Which line of which batch it answers. */
  id: string;
  custom_id: string | null;
} & Outcome;

/** How many tokens an answer has. */
export function tokensOf({ response }: Outcome): number {
  const usage = response?.body.usage as { completion_tokens?: number } | undefined;
  return usage?.completion_tokens ?? 0;
}
