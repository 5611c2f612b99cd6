/** Random work for an engine: requests of all kinds that arrive at random steps, some of which are cancelled. */

import { Engine, type EngineOptions, type SubmitOptions } from "../../lib/engine/engine.ts";
import { generateBatch } from "../../lib/engine/generate.ts";
import { KvCache } from "../../lib/engine/kv_cache.ts";
import { byPriority, firstCome, shortestPrompt } from "../../lib/engine/policy.ts";
import type { Generated } from "../../lib/engine/request.ts";
import type { StepRecord } from "../../lib/engine/timeline.ts";
import type { GPT2 } from "../../lib/gpt2/model.ts";
import { padBatch } from "../../lib/tokenizer/batch.ts";
import { seededRandom } from "../../lib/util/random.ts";
import { nextTurn } from "../../lib/util/turn.ts";

/** A request, and what came of it. */
export interface Asked {
  options: SubmitOptions;
  /** Undefined if it was cancelled. */
  answer?: Generated;
}

/** What a request gets alone. */
export async function alone(model: GPT2, { prompt, ...options }: SubmitOptions): Promise<Generated> {
  const [answer] = await generateBatch(model, padBatch([prompt], { padTokenId: 0 }), options);
  return answer;
}

/** Lets the engine run until so many steps are done, or it has nothing to do. */
export async function untilStep(engine: Engine, step: number): Promise<void> {
  while (engine.timeline.count < step && engine.seated + engine.waiting > 0) await nextTurn();
}

/** A random engine for a model: seats, chunks, policy and memory follow from the seed. */
export function randomEngine(model: GPT2, seed: number): EngineOptions & { kvCacheBytes: number } {
  const random = seededRandom(1000 + seed), upTo = (n: number) => 1 + Math.floor(random() * n);
  const maxBatch = upTo(8), { config, backend } = model, room = backend.cachePolicy.roomFor?.(1) ?? 1;
  const row = KvCache.bytes(config, room, backend.cachePolicy.slotsFor(config.n_positions));
  return {
    model,
    maxBatch,
    stepTokens: maxBatch + Math.floor(random() * 24),
    kvCacheBytes: Math.floor(row * (random() < 0.7 ? 1 + random() : 8)),
    policy: [firstCome, firstCome, shortestPrompt, byPriority][upTo(4) - 1],
    parallelism: { lanes: Math.min(maxBatch, upTo(2)), threads: 1 },
  };
}

/** A random request: greedy or sampled, its prompt one of few beginnings and an end of its own. */
export function randomRequest({ vocab_size, n_positions }: GPT2["config"], random: () => number): SubmitOptions {
  const upTo = (n: number) => 1 + Math.floor(random() * n), token = () => upTo(vocab_size) - 1;
  const family = upTo(3), begin = seededRandom(family), shared = random() < 0.5 ? 0 : upTo(30);
  const prompt = Array.from({ length: shared }, () => Math.floor(begin() * vocab_size));
  prompt.push(...Array.from({ length: upTo(random() < 0.2 ? 40 : 8) }, token));
  return {
    prompt,
    maxTokens: Math.min(upTo(random() < 0.4 ? 50 : 12), n_positions - prompt.length),
    ...random() < 0.5 && { temperature: 0.5 + random(), seed: upTo(1e6), ...random() < 0.4 && { topK: upTo(20) } },
    ...random() < 0.1 && { repetitionPenalty: 1.3, frequencyPenalty: 0.3 },
    ...random() < 0.1 && { promptLogprobs: true },
    ...random() < 0.1 && { logprobs: true, topLogprobs: upTo(3) },
    priority: upTo(3),
  };
}

/** Runs random requests through a random engine: what came of each, and every step. */
export async function randomWork(
  model: GPT2,
  { seed, requests }: { seed: number; requests: number },
): Promise<{ asked: Asked[]; steps: StepRecord[]; engine: EngineOptions & { kvCacheBytes: number } }> {
  const random = seededRandom(seed), options = randomEngine(model, seed), asked: Asked[] = [];
  await using engine = new Engine(options);
  const pending: Promise<void>[] = [];
  while (asked.length < requests) {
    const one: Asked = { options: randomRequest(model.config, random) };
    const n = random() < 0.1 ? 3 : 1, answers = engine.submitAll(one.options, n), cancelled = random() < 0.35;
    pending.push(...answers.slice(1).map(async ({ result }) => void await result));
    pending.push(answers[0].result.then((answer) => void (one.answer = answer), (error) => {
      if (!cancelled) throw error;
    }));
    if (cancelled) {
      const step = engine.timeline.count + Math.floor(random() * 8);
      pending.push(untilStep(engine, step).then(() => answers[0].cancel()));
    }
    asked.push(one);
    if (random() < 0.5) await untilStep(engine, engine.timeline.count + Math.floor(random() * 8));
  }
  await Promise.all(pending);
  await engine.drain();
  return { asked, steps: engine.timeline.steps, engine: options };
}
