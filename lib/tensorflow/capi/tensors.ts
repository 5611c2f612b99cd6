/** The tensors that a binding has given out, by number. */

import type { DeviceTensor } from "./device_tensor.ts";
import type { GraphTensor } from "./graph.ts";

/** A tensor on a device, or, inside a capture, one that the graph will compute. */
export type Tensor = DeviceTensor | GraphTensor;

/** What tfjs-node's backend wants to know of an operation's output. */
export interface TensorMetadata {
  /** Our number for the tensor. */
  id: number;
  /** Its shape. */
  shape: number[];
  /** Its TensorFlow type, one of `DataType`. */
  dtype: number;
}

/** Tensors by number. A number is never given out twice. */
export class Tensors {
  readonly #tensors = new Map<number, Tensor>();
  #nextId = 1;

  /** Numbers from this one on have not been given out. */
  get nextId(): number {
    return this.#nextId;
  }

  /** How many there are. */
  get size(): number {
    return this.#tensors.size;
  }

  /** Gives a tensor its number. */
  add(tensor: Tensor): number {
    this.#tensors.set(this.#nextId, tensor);
    return this.#nextId++;
  }

  /** Gives a tensor its number, and tells what it is. */
  describe(tensor: Tensor): TensorMetadata {
    return {
      id: this.add(tensor),
      get shape() {
        return tensor.shape;
      },
      dtype: tensor.dtype,
    };
  }

  /** The tensor of that number. Throws a ReferenceError when there is none any more. */
  get(id: number): Tensor {
    const tensor = this.#tensors.get(id);
    if (!tensor) throw new ReferenceError(`Cannot use tensor ${id}: it was disposed of, or never made.`);
    return tensor;
  }

  /** The tensor of that number, on a device. Throws a TypeError for one of a capture; `purpose` follows "Cannot". */
  onDevice(id: number, purpose: string): DeviceTensor {
    const tensor = this.get(id);
    if ("handle" in tensor) return tensor;
    throw new TypeError(`Cannot ${purpose} tensor ${id} inside a capture: it is computed when the function runs.`);
  }

  /** Takes a tensor out. */
  remove(id: number): Tensor {
    const tensor = this.get(id);
    this.#tensors.delete(id);
    return tensor;
  }
}
