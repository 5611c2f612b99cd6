/** Entries to an engine, results back: what the batch runner and the worker share. */

import { Engine } from "../engine/engine.ts";
import type { Answering } from "../engine/job.ts";
import { completion, completionHead } from "../openai/completion.ts";
import { type CompletionRequest, completionRequest, type ServedModel } from "../openai/completion_request.ts";
import { apiError } from "../openai/error.ts";
import type { Entry, LineError } from "./entry.ts";
import type { Outcome } from "./result.ts";

/** Answers entries with an engine, whose queue it never fills. */
export class Answerer {
  /** Of who was the last to submit: those who wait for room in the queue wait one behind another. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(private readonly engine: Engine, private readonly served: ServedModel) {}

  /** What comes of an entry. Throws where the engine as a whole has failed; all else is the entry's own error. */
  async answer({ number, body, error }: Entry): Promise<Outcome> {
    if (error) return refused(number, error);
    const answers: Answering[] = [];
    try {
      const request = await completionRequest(body, this.served);
      const turn = this.#turn.then(() => this.#submit(request, answers));
      this.#turn = turn.catch(() => {});
      await turn;
      const whole = await Promise.all(answers.map(({ result }) => result));
      const response = completion(completionHead(this.served), request, whole);
      return { response: { status_code: 200, request_id: response.id, body: { ...response } }, error: null };
    } catch (cause) {
      for (const answer of answers) answer.cancel();
      const { status, code, type, message, param } = apiError(cause);
      if (status >= 500 && this.engine.closed) throw cause;
      return refused(number, { code: code ?? type, message, ...param && { param } });
    }
  }

  async #submit({ prompts, n }: CompletionRequest, answers: Answering[]): Promise<void> {
    for (const { options } of prompts) {
      await this.engine.ready(n);
      answers.push(...this.engine.submitAll(options, n));
    }
  }
}

function refused(line: number, error: LineError): Outcome {
  return { response: null, error: { ...error, line } };
}
