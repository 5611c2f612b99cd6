/** OpenAI's completions as bodies and answers: what is read, what is refused, and that answers say what the library says. */

import assert from "node:assert/strict";
import { Engine } from "../lib/engine/engine.ts";
import { generateBatch } from "../lib/engine/generate.ts";
import { completion, completionHead, streamCompletion } from "../lib/openai/completion.ts";
import type { Completion } from "../lib/openai/completion.ts";
import { completionRequest, submitCompletion } from "../lib/openai/completion_request.ts";
import { ApiError, apiError } from "../lib/openai/error.ts";
import { loadGPT2 } from "../lib/pretrained.ts";
import { padBatch } from "../lib/tokenizer/batch.ts";
import { AutoTokenizer } from "../lib/tokenizer/tokenizer.ts";
import { seededRandom } from "../lib/util/random.ts";
import { workingBackends } from "./_support/backends.ts";
import { assertClose } from "./_support/logits.ts";

const full = Deno.env.has("OMNIBUS_FULL");
const { working: [backend] } = await workingBackends();
const tokenizer = await AutoTokenizer.fromPretrained("models/small");
const served = { name: "small", config: { n_positions: 256, vocab_size: 50257 }, tokenizer };

/** What a body is refused with. */
async function refusal(body: unknown): Promise<ApiError> {
  try {
    await completionRequest(body, served);
  } catch (error) {
    assert.ok(error instanceof ApiError, `${error}`);
    return error;
  }
  throw new Error(`It is taken: ${JSON.stringify(body)?.slice(0, 200)}`);
}

Deno.test("a body's settings are the library's of the same meaning, and what it leaves out or has as null is OpenAI's default", async () => {
  const body = {
    ...{
      model: "small",
      prompt: "Call me",
      max_tokens: 7,
      n: 3,
      stream: true,
      stream_options: { include_usage: true },
    },
    ...{ temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.1, repetition_penalty: 1.2, presence_penalty: -1 },
    ...{ frequency_penalty: 2, min_tokens: 2, logit_bias: { "50256": -100, "5": 1.5 }, seed: -3, stop: ["\n", "END"] },
    ...{ stop_token_ids: [13], ignore_eos: true, echo: true, logprobs: 5, user: "somebody", unheard_of: [[[]]] },
  };
  const { prompts: [{ text, options }], ...rest } = await completionRequest(body, served);
  assert.deepEqual(rest, {
    n: 3,
    stream: true,
    includeUsage: true,
    continuousUsage: false,
    echo: true,
    logprobs: 5,
    promptOnly: false,
  });
  assert.equal(text, "Call me");
  assert.deepEqual(options, {
    ...{ prompt: tokenizer.encode("Call me"), maxTokens: 7, temperature: 0.5, topP: 0.9, topK: 40, minP: 0.1 },
    ...{ repetitionPenalty: 1.2, presencePenalty: -1, frequencyPenalty: 2, minTokens: 2, seed: -3 },
    ...{ logitBias: { "50256": -100, "5": 1.5 }, stop: ["\n", "END"], stopIds: [13], ignoreEos: true, tokenizer },
    ...{ logprobs: true, topLogprobs: 5, promptLogprobs: true },
  });
  const nulls = Object.fromEntries(Object.keys(body).map((name) => [name, null]));
  for (const empty of [{ prompt: "Call me" }, { ...nulls, prompt: "Call me" }]) {
    const { prompts: [{ options }], ...rest } = await completionRequest(empty, served);
    const asked = Object.entries(options).filter(([, value]) => value !== undefined).map(([name]) => name).sort();
    assert.deepEqual(asked, ["maxTokens", "prompt", "seed", "temperature", "tokenizer"]);
    assert.deepEqual([options.maxTokens, options.temperature, rest.n], [16, 1, 1]);
    assert.deepEqual([rest.stream, rest.includeUsage, rest.echo, rest.logprobs], [false, false, false, undefined]);
  }
});

Deno.test("a prompt is a text, token ids, or a list of either; without a seed each gets its own", async () => {
  const promptsOf = async (prompt: unknown) =>
    (await completionRequest({ prompt }, served)).prompts.map(({ text, options }) => [text, options.prompt]);
  assert.deepEqual(await promptsOf("Call me"), [["Call me", [14134, 502]]]);
  assert.deepEqual(await promptsOf(["Call", " me"]), [["Call", [14134]], [" me", [502]]]);
  assert.deepEqual(await promptsOf([14134, 502]), [["Call me", [14134, 502]]]);
  assert.deepEqual(await promptsOf([[14134], [502]]), [["Call", [14134]], [" me", [502]]]);
  assert.deepEqual(await promptsOf(""), [["", [50256]]], "GPT-2 begins a text with its end");
  const { prompts } = await completionRequest({ prompt: ["a", "a", "a"] }, served);
  assert.equal(new Set(prompts.map(({ options }) => options.seed)).size, 3);
  const { prompts: same } = await completionRequest({ prompt: ["a", "a"], seed: 5 }, served);
  assert.deepEqual(same.map(({ options }) => options.seed), [5, 5]);
});

Deno.test("what cannot be is refused with the field at fault, its value and what it must be", async () => {
  const cases: [body: unknown, param: string | null, message: RegExp][] = [
    [undefined, null, /the body: it must be a JSON object/],
    [null, null, /the body: it must be/],
    ["text", null, /the body "text": it must be/],
    [[], null, /the body: it must be/],
    [{}, "prompt", /prompt: it must be a text, a list of token ids/],
    [{ prompt: null }, "prompt", /it must be a text/],
    [{ prompt: 5 }, "prompt", /it must be a text/],
    [{ prompt: [] }, "prompt", /none of them empty/],
    [{ prompt: [[]] }, "prompt", /none of them empty/],
    [{ prompt: ["a", 5] }, "prompt", /one kind/],
    [{ prompt: [1.5] }, "prompt", /one kind/],
    [{ prompt: [-1] }, "prompt", /one kind/],
    [{ prompt: [50257] }, "prompt", /no token 50257; the last is 50256/],
    [{ prompt: [[5], [50257]] }, "prompt", /no token 50257/],
    [{ prompt: "\ud800" }, "prompt", /half a character/],
    [{ prompt: Array(2049).fill("a") }, "prompt", /2049 elements; at most 2048/],
    [{ prompt: "a", max_tokens: 256 }, "prompt", /the prompt has 1 and the model holds 256/],
    [{ prompt: Array(300).fill(5) }, "prompt", /the prompt has 300 and the model holds 256/],
    [{ prompt: "a".repeat(1e6) }, "prompt", /the prompt has \d+ or more and the model holds 256/],
    [{ max_tokens: 0 }, "max_tokens", /without echo/],
    [{ max_tokens: -1 }, "max_tokens", /max_tokens -1: it must be a whole number from 0 up/],
    [{ max_tokens: 1.5 }, "max_tokens", /max_tokens 1.5/],
    [{ max_tokens: 1e300 }, "max_tokens", /max_tokens 1e\+300/],
    [{ max_tokens: "7" }, "max_tokens", /max_tokens "7"/],
    [{ min_tokens: 17 }, "min_tokens", /min_tokens 17: max_tokens is 16/],
    [{ n: 0 }, "n", /n 0: it must be a whole number from 1 to 128/],
    [{ n: 129 }, "n", /n 129/],
    [{ temperature: -1 }, "temperature", /temperature -1: it must be a number from 0 to 100/],
    [{ temperature: Infinity }, "temperature", /temperature Infinity/],
    [{ temperature: NaN }, "temperature", /temperature NaN/],
    [{ temperature: {} }, "temperature", /temperature: it must be/],
    [{ top_p: 95 }, "top_p", /top_p 95: it must be a number from 0 to 1/],
    [{ top_k: -2 }, "top_k", /top_k -2/],
    [{ min_p: true }, "min_p", /min_p true/],
    [{ presence_penalty: 3 }, "presence_penalty", /from -2 to 2/],
    [{ seed: 2 ** 60 }, "seed", /at most 53 bits/],
    [{ stop: 5 }, "stop", /a text, or a list of at most 16 texts/],
    [{ stop: Array(17).fill("a") }, "stop", /at most 16/],
    [{ stop_token_ids: [50257] }, "stop_token_ids", /no token 50257/],
    [{ stop_token_ids: ["a"] }, "stop_token_ids.0", /stop_token_ids.0 "a": it must be a whole number/],
    [{ stop_token_ids: Array(1e6).fill("a") }, "stop_token_ids", /at most 1024/],
    [{ logit_bias: { a: 1 } }, "logit_bias.a", /token ids/],
    [{ logit_bias: { 5: "1" } }, "logit_bias.5", /logit_bias.5 "1": it must be a number from -100 to 100/],
    [{ logit_bias: { 5: 101 } }, "logit_bias.5", /logit_bias.5 101/],
    [{ logit_bias: { 50257: 1 } }, "logit_bias", /no token 50257/],
    [{ logit_bias: [1] }, "logit_bias", /an object of token ids/],
    [{ logit_bias: Object.fromEntries(Array(1025).entries()) }, "logit_bias", /at most 1024/],
    [{ echo: "yes" }, "echo", /echo "yes": it must be true or false/],
    [{ logprobs: 21 }, "logprobs", /from 0 to 20/],
    [{ logprobs: true }, "logprobs", /from 0 to 20/],
    [{ stream: 1 }, "stream", /true or false/],
    [{ stream_options: [] }, "stream_options", /an object/],
    [{ stream_options: { include_usage: 1 } }, "stream_options.include_usage", /true or false/],
    [{ best_of: 2 }, "best_of", /not supported/],
    [{ suffix: "end" }, "suffix", /not supported/],
    [{ guided_regex: "a+" }, "guided_regex", /not supported/],
    [{ priority: 1 }, "priority", /not supported/],
  ];
  for (const [body, param, message] of cases) {
    const whole = Object.prototype.toString.call(body) === "[object Object]" && Object.keys(body!)[0] !== "prompt" &&
      Object.keys(body!).length > 0;
    const error = await refusal(whole ? { prompt: "a", ...body as object } : body);
    assert.deepEqual([error.status, error.param], [400, param], error.message);
    assert.match(error.message, message);
    assert.ok(error.message.length < 300, error.message);
  }
  const error = await refusal({ prompt: "a", model: "gpt-5" });
  assert.deepEqual([error.status, error.code, error.param], [404, "model_not_found", "model"]);
  const neutral = { best_of: 1, suffix: null, bad_words: [], skip_special_tokens: true, priority: 0, top_k: -1 };
  assert.equal((await completionRequest({ prompt: "a", ...neutral }, served)).prompts[0].options.topK, 0);
});

Deno.test("an error is OpenAI's, with a status by its kind, and says nothing of what is none of the client's business", async () => {
  using model = await loadGPT2("models/small", { backend });
  await using engine = new Engine({ model, maxBatch: 1, maxQueue: 2 });
  const status = async (body: object) => {
    try {
      return submitCompletion(engine, await completionRequest({ prompt: "a", ...body }, served));
    } catch (error) {
      return (error as ApiError).toJSON().error.code;
    }
  };
  assert.equal(await status({ prompt: ["a", "b", "c"] }), "queue_full");
  assert.equal(engine.waiting, 0, "all or none");
  assert.equal(await status({ prompt: ["a", "b"], n: 2 }), "queue_full");
  assert.equal(engine.waiting, 0);
  await using small = new Engine({ model, kvCacheBytes: 1 });
  const one = await completionRequest({ prompt: "a" }, served);
  assert.throws(
    () => submitCompletion(small, one),
    (error: ApiError) => error.status === 422 && error.code === "out_of_memory",
  );
  const secret = apiError(new Error("/home/me/secret"));
  assert.deepEqual([secret.status, secret.type], [500, "server_error"]);
  assert.doesNotMatch(JSON.stringify(secret), /secret/);
  assert.equal((secret.cause as Error).message, "/home/me/secret");
  assert.equal(apiError(new RangeError("x")).status, 400);
  assert.equal(apiError(new DOMException("gone", "AbortError")).status, 499);
  assert.deepEqual(JSON.parse(JSON.stringify(new ApiError(429, "later", { code: "queue_full" }))), {
    error: { message: "later", type: "rate_limit_error", param: null, code: "queue_full" },
  });
});

/** A random body that exercises what changes an answer's shape. */
function randomBody(random: () => number): Record<string, unknown> {
  const upTo = (n: number) => 1 + Math.floor(random() * n), one = () => random() < 0.5;
  const texts = ["Call me", "It is a truth universally", "🚌 日本語", "", "<|endoftext|>The"];
  const text = () => texts[upTo(texts.length) - 1];
  const ids = () => Array.from({ length: upTo(6) }, () => upTo(50257) - 1);
  const prompts = [text, ids, () => [text(), text()], () => [ids(), ids(), ids()]];
  return {
    prompt: prompts[upTo(4) - 1](),
    max_tokens: upTo(20),
    n: upTo(3),
    temperature: one() ? 0 : 1.5,
    seed: upTo(1000),
    ...one() && { echo: true },
    ...random() < 0.7 && { logprobs: upTo(4) - 1 },
    ...one() && { stop: [" the", "e", ", "].slice(0, upTo(3)) },
    ...one() && { logit_bias: { 50256: 3 } },
    ...random() < 0.2 && { ignore_eos: true },
    ...random() < 0.1 && { max_tokens: 0, echo: true },
  };
}

/** A completion from its chunks. */
function joined(chunks: readonly Completion[]): Completion {
  const choices: Completion["choices"] = [];
  for (const { index, text, logprobs, ...ending } of chunks.flatMap(({ choices }) => choices)) {
    const known = choices[index] ??= { index, text: "", logprobs: logprobs && logprobsOfNone(), finish_reason: null };
    assert.equal(known.finish_reason, null, "nothing comes after the end");
    known.text += text;
    for (const [name, values] of Object.entries(logprobs ?? {})) {
      (known.logprobs![name as keyof typeof logprobs] as unknown[]).push(...values);
    }
    Object.assign(known, ending);
  }
  return { ...chunks[0], choices, usage: chunks.at(-1)!.usage };
}

const logprobsOfNone = () => ({ tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] });

Deno.test("answers say what the library says, and chunks joined say what the whole answer says, for random bodies", async () => {
  using model = await loadGPT2("models/small", { backend });
  await using engine = new Engine({ model, maxBatch: 8 });
  const random = seededRandom(1), seen = { stopped: 0, cutScores: 0, echoed: 0, scored: 0, unlikely: 0 };
  let compared = 0, differing = 0;
  for (let i = 0; i < (full ? 200 : 8); i++) {
    const body = randomBody(random), say = JSON.stringify(body), request = await completionRequest(body, served);
    const head = completionHead(served), answers = submitCompletion(engine, request);
    const whole = completion(head, request, await Promise.all(answers.map(({ result }) => result)));
    const chunks: Completion[] = [],
      withUsage = { ...request, stream: true, includeUsage: true, continuousUsage: i % 3 === 0 };
    await streamCompletion(head, withUsage, answers, (chunk) => void chunks.push(chunk));
    const streamed = joined(chunks);
    const withoutNumbers = ({ choices, ...rest }: Completion) => ({
      ...rest,
      choices: choices.map(({ logprobs, ...choice }) => ({
        ...choice,
        logprobs: logprobs && { tokens: logprobs.tokens, text_offset: logprobs.text_offset },
      })),
    });
    assert.deepEqual(withoutNumbers(streamed), withoutNumbers(whole), say);
    const parts = chunks.slice(0, -1), fed = whole.usage.prompt_tokens;
    if (withUsage.continuousUsage) assert.ok(parts.every(({ usage }) => usage!.prompt_tokens === fed), say);
    else assert.ok(parts.every(({ usage }) => usage === null));
    assert.equal(whole.choices.length, request.prompts.length * request.n);
    for (const [p, { text, options: { prompt, ...options } }] of request.prompts.entries()) {
      const alone = await generateBatch(model, padBatch([prompt], { padTokenId: 0 }), { ...options, n: request.n });
      for (const [k, expected] of alone.entries()) {
        const { logprobs, ...choice } = whole.choices[p * request.n + k], begin = request.echo ? text : "";
        if (request.promptOnly) {
          assert.deepEqual([choice.text, choice.finish_reason], [text, "length"], say);
        } else {
          compared++;
          if (choice.text !== begin + expected.text) { // a tie
            differing++;
            continue;
          }
          assert.deepEqual([choice.finish_reason, choice.seed], [expected.finishReason, expected.seed]);
          if (expected.finishReason === "stop") seen.stopped++;
        }
        if (request.echo) seen.echoed++;
        assert.equal(logprobs !== null, request.logprobs !== undefined);
        if (!logprobs) continue;
        const made = request.promptOnly ? { tokens: [], logprobs: [] } : expected;
        const ids = [...request.echo ? prompt : [], ...made.tokens];
        const values = [...request.echo ? [NaN, ...expected.promptLogprobs!] : [], ...made.logprobs!];
        for (const list of Object.values(logprobs)) assert.equal(list.length, ids.length, say);
        const characters = [...choice.text];
        for (const [t, offset] of logprobs.text_offset.entries()) {
          const token: string = tokenizer.tokenToText(ids[t]), name: string = logprobs.tokens[t];
          assert.equal(name, /^(\\x..)+$/.test(token) ? `bytes:${token.toLowerCase()}` : token, say);
          const rest = characters.slice(offset).join("").replace(/^\uFFFD+/, ""); // of bytes before it
          const visible = !name.startsWith("bytes:") && ids[t] !== 50256;
          if (visible && !rest.startsWith(name)) {
            assert.ok(choice.finish_reason === "stop" && name.startsWith(rest), `${say}: ${name} at ${offset}`);
            seen.cutScores++;
          }
          assert.ok(offset >= (logprobs.text_offset[t - 1] ?? 0));
          if (request.echo && t === 0) {
            assert.deepEqual([logprobs.token_logprobs[0], logprobs.top_logprobs[0]], [null, null]);
            continue;
          }
          const top: Record<string, number> = logprobs.top_logprobs[t]!, count = Object.keys(top).length;
          assert.equal(top[name], logprobs.token_logprobs[t]);
          assert.ok(count >= Math.max(1, request.logprobs!) && count <= request.logprobs! + 1, say);
          if (count > request.logprobs! && count > 1) seen.unlikely++;
          seen.scored++;
        }
        assertClose(logprobs.token_logprobs.map((value) => value ?? 0), values.map((value) => value || 0), 1e-3, say);
      }
    }
    const usage = whole.usage, count = whole.choices.length;
    assert.equal(usage.prompt_tokens, request.prompts.reduce((sum, { options }) => sum + options.prompt.length, 0));
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    if (request.promptOnly) assert.equal(usage.completion_tokens, 0);
    else assert.ok(usage.completion_tokens <= count * request.prompts[0].options.maxTokens);
  }
  assert.ok(differing <= 0.005 * compared, `${differing} of ${compared} differ`); // ties
  for (const [what, times] of Object.entries(seen)) assert.ok(times > 0, `${what}: ${JSON.stringify(seen)}`);
});

Deno.test("control: log-probabilities that follow the tokens at once, stop text or not, are not those of the whole answer", async () => {
  using model = await loadGPT2("models/small", { backend });
  await using engine = new Engine({ model, maxBatch: 8 });
  let differing = 0;
  for (let seed = 0; seed < 10; seed++) {
    const body = {
      prompt: "Call me",
      max_tokens: 20,
      seed,
      temperature: 1,
      logprobs: 1,
      stop: [" the", " of", ", and"],
    };
    const request = await completionRequest(body, served),
      [answer] = submitCompletion(engine, request),
      tokens: number[] = [];
    for await (const { token } of answer.stream) tokens.push(token);
    if (tokens.length !== (await answer.result).tokens.length) differing++;
  }
  assert.ok(differing > 0);
});
