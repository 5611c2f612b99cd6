/** Copies of rows within KV caches on a GPU, without touching anything else in them. */

import type * as tf from "@tensorflow/tfjs";
import type { TfjsOnGpu } from "./tfjs.ts";

/** cache [R, H, S, D/H]: rows `to` become copies of rows `from` of `source`, as far as that has slots. Returns `cache`. */
export function copyRows(
  tfjs: TfjsOnGpu,
  cache: tf.Tensor4D,
  to: readonly number[],
  source: tf.Tensor4D,
  from: readonly number[],
): tf.Tensor4D {
  const [, heads, slots, size] = cache.shape, { device } = tfjs.gpu;
  const target = tfjs.bufferOf(cache), origin = tfjs.bufferOf(source);
  const row = (tensor: tf.Tensor4D) => Float32Array.BYTES_PER_ELEMENT * heads * tensor.shape[2] * size;
  const head = (tensor: tf.Tensor4D) => row(tensor) / heads, rowBytes = row(source);
  tfjs.flush();
  // Through memory of their own: a buffer cannot be copied to itself, and a row that is read may be one that is written.
  const usage = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const between = device.createBuffer({ size: rowBytes * from.length, usage });
  const encoder = device.createCommandEncoder();
  from.forEach((r, i) => encoder.copyBufferToBuffer(origin, r * rowBytes, between, i * rowBytes, rowBytes));
  to.forEach((r, i) => {
    if (slots === source.shape[2]) {
      return encoder.copyBufferToBuffer(between, i * rowBytes, target, r * rowBytes, rowBytes);
    }
    for (let h = 0; h < heads; h++) {
      const place = i * rowBytes + h * head(source);
      encoder.copyBufferToBuffer(between, place, target, r * row(cache) + h * head(cache), head(source));
    }
  });
  device.queue.submit([encoder.finish()]);
  between.destroy();
  return cache;
}
