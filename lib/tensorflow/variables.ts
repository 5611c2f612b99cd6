/**
 * Variables: tensors that keep their place while captured steps change them. XLA's programs own what they compute, but write
 * what is assigned to a variable into its memory, so that a step neither copies it nor leaves it at another address, which a
 * GPU's graph of the step would have to be told.
 *
 * For tfjs a variable is a tensor of the shape of what it holds, but its values are only to be had by reading it.
 */

import type * as tf from "@tensorflow/tfjs";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

const dtype = attr.type("dtype", DataType.float);

/** Variables on a backend, of float32 values. */
export function variables(backend: TensorflowBackend) {
  return {
    /** One that holds these values at first, which stay the caller's. */
    create: <R extends tf.Tensor>(values: R): R => backend.createVariable(values) as R,
    /** Its values as they are now. */
    read: <R extends tf.Tensor>(variable: R): R => backend.execute("ReadVariableOp", [dtype], [variable])[0] as R,
    /** Others. */
    assign(variable: tf.Tensor, values: tf.Tensor): void {
      backend.executeRaw("AssignVariableOp", [dtype], [variable, values], 0);
    },
  };
}
