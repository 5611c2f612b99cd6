/** The list of models, of which there is one. */

import type { ServedModel } from "./completion_request.ts";

/** The answer to `GET /v1/models`, with vLLM's `max_model_len`. `created` is in seconds since 1970. */
export function modelList({ name, config }: ServedModel, created: number) {
  const model = { id: name, object: "model", created, owned_by: "omnibus", max_model_len: config.n_positions };
  return { object: "list", data: [model] };
}
