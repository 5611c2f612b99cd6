/** tfjs-node 4.22 was made for Node 18 and TensorFlow 2.9: what it takes to run its kernels on newer ones. */

import type * as Tfjs from "@tensorflow/tfjs";

/** Gives `node:util` two functions back that newer runtimes no longer have. */
export function patchNodeUtil(util: Record<string, unknown>): void {
  util.isNullOrUndefined ??= (value: unknown) => value === null || value === undefined;
  util.isArray ??= Array.isArray;
}

/** Replaces the kernels that TensorFlow's operations have since left behind. */
export function patchKernels(tf: typeof Tfjs): void {
  const patch = (kernelName: string, wrap: (original: Tfjs.KernelFunc) => Tfjs.KernelFunc) => {
    const original = tf.getKernel(kernelName, "tensorflow");
    tf.unregisterKernel(kernelName, "tensorflow");
    tf.registerKernel({ ...original, kernelFunc: wrap(original.kernelFunc) });
  };
  // TensorFlow 2.21's Round gives zeros for whole numbers, and says nothing.
  patch("Round", (original) => (args) => {
    const integer = (args.inputs as { x: Tfjs.TensorInfo }).x.dtype === "int32";
    return integer ? tf.getKernel("Identity", "tensorflow").kernelFunc(args) : original(args);
  });
  // Its Concat no longer takes scalars, which tfjs-node's histograms give it.
  patch("Concat", (original) => (args) => {
    const inputs = args.inputs as unknown as Tfjs.Tensor[];
    const vectors = inputs.map((input) => input.shape.length ? input : tf.reshape(input, [1]));
    return original({ ...args, inputs: vectors as unknown as Tfjs.NamedTensorInfoMap });
  });
}
