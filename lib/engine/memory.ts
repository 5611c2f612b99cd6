/** What a batch needs of memory, and how to stay within it. */

import type { GPT2Config } from "../gpt2/config.ts";
import { formatBytes } from "../util/format.ts";
import { availableMemory } from "../util/runtime.ts";
import { KvCache } from "./kv_cache.ts";

/** About how much memory one step of prefill may use for its activations. */
const PREFILL_BYTES = 512e6;

const FLOAT = Float32Array.BYTES_PER_ELEMENT;

/**
 * How many tokens of each row to prefill at once, so that attention scores and activations stay within bounds: long
 * prompts in large batches go through the model in stretches.
 */
export function prefillChunk(config: GPT2Config, batchSize: number, width: number): number {
  return Math.max(1, Math.min(width, Math.floor(PREFILL_BYTES / bytesPerToken(config, batchSize, width))));
}

/**
 * Throws a RangeError that names the bytes needed if a batch of `batchSize` rows would not fit into the memory that is
 * free: its cache at full length, the growing of one layer of it, and the activations of a step.
 */
export function checkMemory(config: GPT2Config, batchSize: number, promptLength: number, maxTokens: number): void {
  const slots = promptLength + maxTokens;
  const cache = KvCache.bytes(config, batchSize, slots);
  const chunk = prefillChunk(config, batchSize, promptLength);
  const logits = 3 * batchSize * config.vocab_size * FLOAT;
  const needed = cache * (1 + 1 / config.n_layer) + chunk * bytesPerToken(config, batchSize, slots) + logits;
  const available = availableMemory();
  if (needed <= available) return;
  throw new RangeError(
    `Cannot generate for ${batchSize} rows of up to ${slots} tokens: that needs ${Math.round(needed)} bytes ` +
      `(${formatBytes(needed)}, of which the KV cache ${formatBytes(cache)}), and ${
        formatBytes(available)
      } are free. ` +
      "Use fewer rows or fewer tokens.",
  );
}

/** The largest activations of one token of each row: scores before and after the softmax, or those of the MLP. */
function bytesPerToken({ n_head, n_embd, n_inner }: GPT2Config, batchSize: number, slots: number): number {
  const attention = 3 * n_head * slots + 4 * n_embd, mlp = 3 * n_inner + 2 * n_embd;
  return batchSize * FLOAT * Math.max(attention, mlp);
}
