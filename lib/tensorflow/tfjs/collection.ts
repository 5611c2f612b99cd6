/**
 * A net under `dispose()`: tfjs wants its tensors freed by hand, and what is forgotten would stay in TensorFlow's memory
 * until the process ends. Here it goes when the garbage collector finds that nobody can use it any more.
 */

import * as tf from "@tensorflow/tfjs";

/** What tfjs-node keeps of a tensor. */
interface TensorData {
  /** The binding's number for it, or -1 while the values wait to be uploaded. */
  id: number;
}

/** tfjs-node's table of tensors, by tfjs's keys, which are objects that live as long as somebody holds the tensor. */
export class CollectedTensors extends tf.DataStorage<TensorData> {
  readonly #registry: FinalizationRegistry<TensorData>;
  #collected = 0;

  /** @param free frees a tensor of the binding */
  constructor(backend: tf.KernelBackend, free: (id: number) => void) {
    super(backend, tf.engine());
    this.#registry = new FinalizationRegistry(({ id }) => {
      this.#collected++;
      if (id >= 0) free(id);
    });
  }

  /** How many tensors had to be collected: were forgotten. */
  get collected(): number {
    return this.#collected;
  }

  /** Notes a tensor. */
  override set(key: object, data: TensorData): void {
    super.set(key, data);
    this.#registry.register(key, data, key);
  }

  /** Forgets a tensor that was freed by hand. */
  override delete(key: object): boolean {
    this.#registry.unregister(key);
    return super.delete(key);
  }
}
