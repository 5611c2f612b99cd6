/** `deno task model`: a model from the hub into `models/`. */

import * as gpt2Checks from "../gpt2/folder.ts";
import { installModel } from "../hub/install.ts";
import { KNOWN_MODELS } from "../hub/name.ts";
import { run, UsageError, userPath } from "./command.ts";
import { formatBytes } from "../util/format.ts";
import { withProgress } from "../util/progress.ts";

const NAMES = Object.keys(KNOWN_MODELS).join(", ");

await run({
  name: "model",
  summary:
    `Downloads a model into models/: ${NAMES}, or any GPT-2 on the hub as OWNER/NAME. An interrupted download is ` +
    "resumed. HF_ENDPOINT, HF_TOKEN and HF_HOME count as they do for Hugging Face's own programs.",
  words: "NAME",
  flags: {
    revision: { type: "string", value: "REV", help: "a commit, branch or tag (default: a pinned commit, else main)" },
    into: { type: "string", value: "DIR", help: "make its folder in DIR (default: models/)" },
    offline: { type: "boolean", help: "send no request: use what is here or in the Hugging Face cache" },
  },
}, async ({ revision, into, offline }, names) => {
  if (names.length !== 1) throw new UsageError(`Name one model: ${NAMES}, or OWNER/NAME.`);
  const [name] = names;
  const { folder, record, parameters, wasThere } = await withProgress(
    name,
    ({ update, log }) =>
      installModel(name, gpt2Checks, {
        revision,
        into: into === undefined ? undefined : userPath(into),
        offline,
        log,
        onProgress: update,
      }),
    { format: formatBytes, rate: true },
  );
  const origin = record ? `${record.repository} at ${record.commit.slice(0, 12)}` : "not from the hub";
  const state = wasThere ? (record ? "is there, and whole" : "is there") : "is ready";
  console.log(`${folder} ${state}: ${origin}, ${parameters.toLocaleString("en")} parameters.`);
  console.log(`Try it: deno task generate --model ${into === undefined ? name : folder} --prompt "Once upon a time"`);
});
