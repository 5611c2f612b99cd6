/** What the page asks of the server: answers as they come, and the engine's steps as they happen. */

let key = "";

/** The API key for everything from now on. */
export function useKey(text) {
  key = text;
}

/** An answer that the server refused, with its status. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, body) {
  const headers = { ...key && { authorization: `Bearer ${key}` }, ...body && { "content-type": "application/json" } };
  const options = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) };
  const response = await fetch(path, options);
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Refused(response.status, error?.message ?? `The server answers ${response.status}.`);
}

/** Server-sent events: `{ name, data }`, of which data is JSON or the word [DONE]. */
async function* eventsOf(response) {
  let text = "";
  for await (const part of chunksOf(response.body.pipeThrough(new TextDecoderStream()))) {
    text += part;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const lines = event.split("\n"),
        field = (name) =>
          lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trim()).join(
            "\n",
          );
      if (field("data")) yield { name: field("event"), data: field("data") };
    }
  }
}

/** What a stream gives; not every browser can loop over one. */
async function* chunksOf(stream) {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Generates; `onText` hears each piece. */
export async function complete(body, onText) {
  for await (const { choices: [choice] } of answers(await ask("v1/completions", { stream: true, ...body }))) {
    onText(choice.text);
  }
}

/** Sends many, at most `atOnce` of them at a time; `onEnd` hears of each its tokens and times. One connection: browsers have six. */
export async function completeAll(bodies, atOnce, onEnd) {
  for await (const times of answers(await ask("crowd", { at_once: atOnce, bodies }))) onEnd(times);
}

async function* answers(response) {
  for await (const { data } of eventsOf(response)) {
    if (data === "[DONE]") return;
    const value = JSON.parse(data);
    if (value.error) throw new Refused(500, value.error.message);
    yield value;
  }
}

/** The engine's steps: first what it is, `{ engine }`, then `{ step }` after `{ step }`, until the server goes away. */
export async function* timeline() {
  for await (const { name, data } of eventsOf(await ask("timeline"))) yield { [name]: JSON.parse(data) };
}
