/** The list of models, of which there is one. */

import { checkModel, type ServedModel } from "./completion_request.ts";

/** The answer to `GET /v1/models`. */
export function modelList(served: ServedModel, created: number) {
  return { object: "list", data: [modelNamed(served.name, served, created)] };
}

/**
 * The answer to `GET /v1/models/NAME`, with vLLM's `max_model_len`. `created` is in seconds since 1970. Throws an
 * {@link ApiError} of status 404 about another name.
 */
export function modelNamed(name: string, served: ServedModel, created: number) {
  checkModel(name, served);
  return { id: name, object: "model", created, owned_by: "omnibus", max_model_len: served.config.n_positions };
}
