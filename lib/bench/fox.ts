/** The first prompt of the running example, for measurements that need no tokenizer. */

/** `The quick brown fox jumped over the`, in GPT-2's tokens. */
export const FOX: readonly number[] = [464, 2068, 7586, 21831, 11687, 625, 262];
