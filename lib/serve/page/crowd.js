/** Passengers that the page sends: with prompts and answers of all lengths, the same ones for the same seed. */

import { completeAll } from "./server.js";

const WORDS = "the sea was calm and the old ship went on her way while men sang of home and of whales".split(" ");

/** Passengers by a seed: bodies for `/v1/completions`. Answers are log-normal, 4 to 120 tokens. */
export function passengers(count, seed) {
  const random = uniform(seed);
  return Array.from({ length: count }, (_, i) => {
    const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const prompt = Array.from(
      { length: 2 + Math.floor(18 * random()) },
      () => WORDS[Math.floor(random() * WORDS.length)],
    );
    const tokens = Math.min(120, Math.max(4, Math.round(24 * Math.exp(0.8 * normal))));
    return { prompt: prompt.join(" "), max_tokens: tokens, temperature: 0.8, seed: seed + i, ignore_eos: true };
  });
}

/** Numbers in [0, 1) by a seed (Marsaglia 2003, xorshift). */
function uniform(seed) {
  let state = (seed * 2654435761 >>> 0) || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state = (state ^ state << 5) >>> 0;
    return state / 2 ** 32;
  };
}

/** Sends passengers so that at most `seats` ride at once: as one gets off, the next gets on. */
export function sendContinuously(bodies, seats, onEnd) {
  return completeAll(bodies, seats, onEnd);
}

/** Sends passengers in batches: nobody gets on before the whole batch has got off. */
export async function sendInBatches(bodies, seats, onEnd) {
  for (let i = 0; i < bodies.length; i += seats) await completeAll(bodies.slice(i, i + seats), seats, onEnd);
}
