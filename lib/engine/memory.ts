/** What a batch needs of memory, and how to stay within it. */

import type { Backend } from "../backend/types.ts";
import { checkAvailable } from "../backend/memory.ts";
import type { GPT2Config } from "../gpt2/config.ts";
import { formatBytes } from "../util/format.ts";
import { KvCache } from "./kv_cache.ts";

/** About how much memory one step of prefill may use for its activations. */
const PREFILL_BYTES = 512e6;

const FLOAT = Float32Array.BYTES_PER_ELEMENT;

/**
 * How many tokens of each row to prefill at once, so that attention scores and activations stay within bounds: long
 * prompts in large batches go through the model in chunks. `withLogits` says that logits are wanted after every token.
 */
export function prefillChunk(config: GPT2Config, batchSize: number, width: number, withLogits = false): number {
  const logits = withLogits ? 3 * batchSize * config.vocab_size * FLOAT : 0;
  return Math.max(1, Math.min(width, Math.floor(PREFILL_BYTES / (bytesPerToken(config, batchSize, width) + logits))));
}

/** A model, or what is going to be one. */
interface Sized {
  readonly config: GPT2Config;
  readonly backend: Pick<Backend, "availableMemory">;
  readonly cachedBytes: number;
}

/**
 * Throws a RangeError that names the bytes needed if a batch of `batchSize` rows would not fit into the memory that is
 * free: its cache at full length, the growing of one layer of it, and the activations of a step. Where the backend cannot
 * tell how much is free, it is left to find out.
 */
export function checkMemory(model: Sized, batchSize: number, promptLength: number, maxTokens: number): void {
  const { config, cachedBytes } = model, slots = promptLength + maxTokens;
  const cache = KvCache.bytes(config, batchSize, slots, cachedBytes);
  const chunk = prefillChunk(config, batchSize, promptLength);
  const logits = 3 * batchSize * config.vocab_size * FLOAT;
  const needed = cache * (1 + 1 / config.n_layer) + chunk * bytesPerToken(config, batchSize, slots) + logits;
  checkAvailable(needed, model.backend, {
    what: `generate for ${batchSize} rows of up to ${slots} tokens`,
    part: `, of which the KV cache ${formatBytes(cache)}`,
    remedy: "Use fewer rows or fewer tokens.",
  });
}

/** The largest activations of one token of each row: scores before and after the softmax, or those of the MLP. */
function bytesPerToken({ n_head, n_embd, n_inner }: GPT2Config, batchSize: number, slots: number): number {
  const attention = 3 * n_head * slots + 4 * n_embd, mlp = 3 * n_inner + 2 * n_embd;
  return batchSize * FLOAT * Math.max(attention, mlp);
}
