/** What sizes.ts measures, and what it writes. */

import type { Roofs } from "../../../backend/types.ts";
import type { Dtype } from "../../../backend/ops.ts";
import { type GPT2Config, gpt2Config, type GPT2Size } from "../../../gpt2/config.ts";

/** Tokens of each row before the first step, and steps. */
export const CONTEXT = 16, STEPS = 16;

/** Wider than the published ones, with heads of 128, as models of today have. */
const WIDER: Record<string, Pick<GPT2Config, "n_layer" | "n_head" | "n_embd">> = {
  "3b": { n_layer: 32, n_head: 22, n_embd: 2816 },
  "7b": { n_layer: 32, n_head: 32, n_embd: 4096 },
};

/** A published size, or one of {@link WIDER}. */
export function sizedConfig(name: string): GPT2Config {
  if (!WIDER[name]) return gpt2Config(name as GPT2Size);
  return { ...gpt2Config("gpt2"), ...WIDER[name], n_inner: 4 * WIDER[name].n_embd };
}

/** The results file. */
export interface SizesResult {
  /** What it was measured on, added by hand. */
  gpu?: string;
  created: string;
  backend: string;
  deno: string;
  dtype: Dtype;
  command: string;
  roofs: Roofs;
  points: {
    model: string;
    parameters: number;
    batchSize: number;
    /** Median of the runs. */
    stepSeconds: number;
    /** Tokens per second. */
    throughput: number;
    mbu: number;
    mfu: number;
  }[];
}
