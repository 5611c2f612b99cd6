/** Where in the model an operation is, as its name says. */

import * as tf from "@tensorflow/tfjs";

/** The names of the `tf.tidy` calls that are under way, as a prefix: `h.0/attn/`. */
export function tidyName(): string {
  const names = tf.engine().state.scopeStack.map(({ name }) => name).filter((name) => /^[\w.]+$/.test(name));
  return names.map((name) => `${name}/`).join("");
}
