/** Text to tokens and back, as vLLM's `/tokenize` and `/detokenize` have them. */

import { z } from "zod";
import { checkModel, type ServedModel } from "./completion_request.ts";
import { ApiError, noChatTemplate } from "./error.ts";

/** Longer texts would keep all others waiting. */
const MOST_CHARACTERS = 50_000;

const TOKENIZE = z.object({
  model: z.string().nullish(),
  prompt: z.string(),
  return_token_strs: z.boolean().nullish(),
});
const DETOKENIZE = z.object({ model: z.string().nullish(), tokens: z.array(z.unknown()) });

/** The tokens of a text. Throws an {@link ApiError} about a body that cannot be. */
export function tokenize(body: unknown, served: ServedModel) {
  if (typeof body === "object" && body && "messages" in body) throw noChatTemplate();
  const { data } = TOKENIZE.safeParse(body);
  if (!data?.prompt.isWellFormed()) {
    throw new ApiError(400, "Cannot tokenize this: prompt must be a text.", { param: "prompt" });
  }
  if (data.prompt.length > MOST_CHARACTERS) {
    throw new ApiError(
      400,
      `Cannot tokenize ${data.prompt.length} characters at once: send ${MOST_CHARACTERS} or fewer.`,
      {
        param: "prompt",
      },
    );
  }
  checkModel(data.model, served);
  const { tokenizer, config: { n_positions } } = served, tokens = tokenizer.encode(data.prompt);
  const token_strs = data.return_token_strs ? tokens.map((id) => tokenizer.tokenToText(id)) : null;
  return { count: tokens.length, max_model_len: n_positions, tokens, token_strs };
}

/** The text of tokens. Throws an {@link ApiError} about a body that cannot be. */
export function detokenize(body: unknown, served: ServedModel) {
  const { data } = DETOKENIZE.safeParse(body), last = served.config.vocab_size - 1;
  const isId = (id: unknown): id is number => Number.isInteger(id) && id as number >= 0 && id as number <= last;
  if (!data?.tokens.every(isId)) {
    throw new ApiError(400, `Cannot use tokens: it must be a list of token ids from 0 to ${last}.`, {
      param: "tokens",
    });
  }
  checkModel(data.model, served);
  return { prompt: served.tokenizer.decode(data.tokens) };
}
