/** Tensors of the types that tfjs does not have, int8 and bfloat16: made from others, and turned. */

import * as tf from "@tensorflow/tfjs";
import { attr, DataType } from "./capi/attributes.ts";
import type { TensorMetadata } from "./capi/tensors.ts";
import type { TensorflowBackend } from "./tfjs/backend.ts";

const { int32, uint8, qint8 } = DataType;

/** A copy of `x` in another type. */
export function cast(
  backend: TensorflowBackend,
  x: tf.Tensor | TensorMetadata,
  from: number,
  to: number,
): TensorMetadata {
  const attributes = [attr.type("SrcT", from), attr.type("DstT", to), attr.bool("Truncate", false)];
  return backend.executeRaw("Cast", attributes, [x])[0];
}

/** [m, K] -> [K, m]. Takes the tensor over. int8 goes as plain bytes: TensorFlow does not transpose its quantized types. */
export function transpose(backend: TensorflowBackend, x: TensorMetadata): TensorMetadata {
  const plain = x.dtype === qint8 ? uint8 : x.dtype;
  const bits = bitcast(backend, x, plain), axes = backend.createRaw([2], int32, new Int32Array([1, 0]));
  const [columns] = backend.executeRaw("Transpose", [attr.type("T", plain), attr.type("Tperm", int32)], [bits, axes]);
  const y = bitcast(backend, columns, x.dtype);
  backend.free([x, bits, axes, columns]);
  return y;
}

/** The same bytes as another type. */
function bitcast(backend: TensorflowBackend, x: TensorMetadata, type: number): TensorMetadata {
  return backend.executeRaw("Bitcast", [attr.type("T", x.dtype), attr.type("type", type)], [x])[0];
}

/** `tf.tidy` for work that makes raw tensors, which it does not know. */
export function tidied<T>(work: () => T): T {
  let result: T;
  tf.tidy(() => void (result = work()));
  return result!;
}
