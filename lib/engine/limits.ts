/** What a model can be asked for: checked once, before anything is computed. */

/** Throws a RangeError unless `maxTokens` is a whole number from 1 up. */
export function checkMaxTokens(maxTokens: number): void {
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 1) {
    throw new RangeError(`Cannot generate ${maxTokens} tokens: maxTokens must be a whole number from 1 up.`);
  }
}

/** Throws a RangeError unless a prompt of `promptLength` tokens and its answer fit into the model's `n_positions`. */
export function checkContext(promptLength: number, maxTokens: number, n_positions: number): void {
  const room = n_positions - promptLength;
  if (room < 1) {
    throw new RangeError(
      `Cannot use a prompt of ${promptLength} tokens: the model holds ${n_positions}, the answer included. ` +
        `Shorten it to ${n_positions - 1} or fewer.`,
    );
  }
  if (maxTokens > room) {
    throw new RangeError(
      `Cannot generate ${maxTokens} tokens: the prompt has ${promptLength} and the model holds ${n_positions}. ` +
        `Lower maxTokens to ${room}.`,
    );
  }
}
