/** Tensors on a device, as TensorFlow hands them out. */

import type { Status, Symbols } from "./library.ts";

/** A tensor on a device. */
export interface DeviceTensor {
  /** The `TFE_TensorHandle`. */
  handle: Deno.PointerValue;
  /** Its TensorFlow type. */
  dtype: number;
  /** Its shape. */
  shape: number[];
}

/** What TensorFlow knows of the tensor behind a handle. */
export function deviceTensor(c: Symbols, handle: Deno.PointerValue, status: Status): DeviceTensor {
  const rank = c.TFE_TensorHandleNumDims(handle, status.pointer);
  status.check();
  const shape = new Array<number>(rank);
  for (let i = 0; i < rank; i++) shape[i] = Number(c.TFE_TensorHandleDim(handle, i, status.pointer));
  status.check();
  return { handle, dtype: c.TFE_TensorHandleDataType(handle), shape };
}
