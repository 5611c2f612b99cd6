/** Answers as OpenAI's completions: whole, or in chunks as they come. */

import type { Answering, Piece } from "../engine/job.ts";
import type { Generated } from "../engine/request.ts";
import type { CompletionRequest, Prompt, ServedModel } from "./completion_request.ts";
import { characters, type CompletionLogprobs, logprobsOf, TokenPlaces, type TokenScore } from "./token_scores.ts";

/** The answers to a body, or what is new of one of them. */
export interface Completion {
  /** The same in all chunks. */
  id: string;
  object: "text_completion";
  /** When it was made, in seconds since 1970. */
  created: number;
  /** The model's name. */
  model: string;
  choices: CompletionChoice[];
  /** What the body took. In chunks, if it was asked for: null but in the last, or in each what it took so far. */
  usage?: Usage | null;
}

/** One answer. */
export interface CompletionChoice {
  /** Its place among the answers to all prompts: those to the first come first. */
  index: number;
  text: string;
  logprobs: CompletionLogprobs | null;
  finish_reason: "stop" | "length" | null;
  /** What its draws followed from, if it was sampled: with it and the same `n` a request gets the same again. */
  seed?: number;
}

/** Tokens. Those of a prompt count once, however many answers it gets. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** What is the same in all parts of an answer: made when its work begins. */
export type CompletionHead = Pick<Completion, "id" | "object" | "created" | "model">;

/** The head of a new completion. */
export function completionHead({ name }: ServedModel): CompletionHead {
  const id = `cmpl-${crypto.randomUUID().replaceAll("-", "")}`;
  return { id, object: "text_completion", created: Math.floor(Date.now() / 1000), model: name };
}

/** All answers to a body, in the order of {@link submitCompletion}. */
export function completion(
  head: CompletionHead,
  request: CompletionRequest,
  answers: readonly Generated[],
): Completion & { usage: Usage } {
  const choices = answers.map((answer, index): CompletionChoice => {
    const choice = new Choice(request, index), begin = choice.prompt(answer), end = choice.whole(answer);
    return {
      index,
      text: begin.text + end.text,
      logprobs: choice.logprobs([...begin.scores, ...end.scores]),
      ...choice.ending(answer),
    };
  });
  return { ...head, choices, usage: usage(request, answers) };
}

/**
 * Sends the answers to a body as they come, in chunks whose texts and log-probabilities, joined, are those of
 * {@link completion}. What `send` returns is waited for before more of the same answer is sent.
 */
export async function streamCompletion(
  head: CompletionHead,
  request: CompletionRequest,
  answers: readonly Answering[],
  send: (chunk: Completion) => void | Promise<void>,
): Promise<void> {
  const soFar = () => usage(request, answers.map(({ answer }) => answer));
  const sendChoice = (choice: CompletionChoice) =>
    send({
      ...head,
      choices: [choice],
      ...request.includeUsage && { usage: request.continuousUsage ? soFar() : null },
    });
  await Promise.all(answers.map((answering, i) => streamChoice(new Choice(request, i), answering, sendChoice)));
  if (!request.includeUsage) return;
  await send({ ...head, choices: [], usage: soFar() });
}

async function streamChoice(
  choice: Choice,
  { stream, answer }: Answering,
  send: (choice: CompletionChoice) => void | Promise<void>,
): Promise<void> {
  let { text, scores }: Part = NOTHING, begun = false;
  for await (const piece of stream) {
    if (!begun) ({ text, scores } = choice.prompt(answer));
    begun = true;
    const part = choice.piece(piece);
    text += part.text;
    scores = [...scores, ...part.scores];
    if (text === "" && scores.length === 0) continue; // half a character, or what may become a stop text
    await send({ index: choice.index, text, logprobs: choice.logprobs(scores), finish_reason: null });
    ({ text, scores } = NOTHING);
  }
  const rest = choice.rest(answer);
  await send({
    index: choice.index,
    text: rest.text,
    logprobs: choice.logprobs(rest.scores),
    ...choice.ending(answer),
  });
}

/** A part of a choice's text, and the tokens that begin in it. */
interface Part {
  text: string;
  scores: readonly TokenScore[];
}

const NOTHING: Part = { text: "", scores: [] };

/** Makes one answer into parts, one after another. */
class Choice {
  readonly #prompt: Prompt;
  readonly #places: TokenPlaces;
  /** Tokens that have come and may yet be cut away, because they may lie in a stop text. */
  #held: TokenScore[] = [];
  /** How many tokens were given, and where their text ends, in characters. */
  #given = 0;
  #end: number;

  constructor(private readonly request: CompletionRequest, readonly index: number) {
    this.#prompt = request.prompts[Math.floor(index / request.n)];
    this.#end = request.echo && request.logprobs !== undefined ? characters(this.#prompt.text) : 0;
    this.#places = new TokenPlaces(this.#tokenizer, this.#end, { skipSpecialTokens: true });
  }

  get #tokenizer() {
    return this.#prompt.options.tokenizer!;
  }

  /** The prompt, if it is to be repeated. */
  prompt({ promptLogprobs = [], promptTopLogprobs = [] }: Generated): Part {
    const { request: { echo, logprobs } } = this, { text, options: { prompt } } = this.#prompt;
    if (!echo) return NOTHING;
    if (logprobs === undefined) return { text, scores: [] };
    const places = new TokenPlaces(this.#tokenizer);
    const scores = prompt.map((id, i) => ({
      ...{ id, offset: places.next(id) },
      ...i > 0 && { logprob: promptLogprobs[i - 1], top: promptTopLogprobs[i - 1] },
    }));
    return { text, scores };
  }

  /** A whole answer. */
  whole({ tokens, text = "", logprobs, topLogprobs }: Generated): Part {
    if (this.request.promptOnly) return NOTHING;
    if (this.request.logprobs === undefined) return { text, scores: [] };
    const scores = tokens.map((id, i) => ({
      ...{ id, offset: this.#places.next(id) },
      ...{ logprob: logprobs![i], top: topLogprobs?.[i] },
    }));
    return { text, scores };
  }

  /** What the next token makes certain. */
  piece({ token: id, text, logprob, top }: Piece): Part {
    if (this.request.promptOnly) return NOTHING;
    if (this.request.logprobs === undefined) return { text, scores: [] };
    this.#held.push({ id, offset: this.#places.next(id), logprob, top });
    this.#end += characters(text);
    const open = this.#held.findIndex(({ offset }) => offset >= this.#end);
    const scores = this.#held.splice(0, open < 0 ? this.#held.length : open);
    this.#given += scores.length;
    return { text, scores };
  }

  /** What is left when the last token has come. */
  rest({ tokens }: Generated): Part {
    return { text: "", scores: this.#held.slice(0, tokens.length - this.#given) };
  }

  /** The lists for a part, if log-probabilities are asked for. */
  logprobs(scores: readonly TokenScore[]): CompletionLogprobs | null {
    return this.request.logprobs === undefined ? null : logprobsOf(this.#tokenizer, scores);
  }

  /** What an answer ends with. */
  ending({ finishReason, seed }: Generated): Pick<CompletionChoice, "finish_reason" | "seed"> {
    if (this.request.promptOnly) return { finish_reason: "length" };
    return { finish_reason: finishReason, ...seed !== undefined && { seed } };
  }
}

function usage({ prompts, promptOnly }: CompletionRequest, answers: readonly Generated[]): Usage {
  const prompt_tokens = prompts.reduce((sum, { options }) => sum + options.prompt.length, 0);
  const completion_tokens = promptOnly ? 0 : answers.reduce((sum, { tokens }) => sum + tokens.length, 0);
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
}
