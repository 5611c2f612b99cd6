/** What is timed at the boundary between JavaScript and TensorFlow: plain JavaScript, for Node.js as well as for Deno. */

const type = (name, value) => ({ name, type: 4, value }), float = 1, int32 = 3, T = type("T", float);
const untransposed = ["transpose_a", "transpose_b"].map((name) => ({ name, type: 3, value: false }));
const convolution = [
  T,
  { name: "strides", type: 1, value: [1, 1, 1, 1] },
  { name: "padding", type: 0, value: "SAME" },
  { name: "data_format", type: 0, value: "NHWC" },
  { name: "dilations", type: 1, value: [1, 1, 1, 1] },
];

/**
 * By name: a function that prepares the case on a binding and gives what is timed. All tensors are so small that the
 * boundary is most of the time.
 */
export const cases = {
  "make and free a tensor": (binding) => {
    const values = new Float32Array(8);
    return () => binding.deleteTensor(binding.createTensor([8], float, values));
  },
  "read 8 numbers": (binding) => {
    const x = zeros(binding, [8]);
    return () => binding.tensorDataSync(x);
  },
  "Square [8]": (binding) => operation(binding, "Square", [T], [zeros(binding, [8])]),
  "AddV2 [2, 4]": (binding) => operation(binding, "AddV2", [T], [zeros(binding, [2, 4]), zeros(binding, [2, 4])]),
  "MatMul [8, 8]": (binding) =>
    operation(binding, "MatMul", [T, ...untransposed], [zeros(binding, [8, 8]), zeros(binding, [8, 8])]),
  "Sum [8], axis 0": (binding) =>
    operation(binding, "Sum", [T, type("Tidx", int32), { name: "keep_dims", type: 3, value: false }], [
      zeros(binding, [8]),
      binding.createTensor([1], int32, new Int32Array([0])),
    ]),
  "Split into 3": (binding) =>
    operation(binding, "Split", [T, { name: "num_split", type: 1, value: 3 }], [
      binding.createTensor([], int32, new Int32Array([0])),
      zeros(binding, [3, 2]),
    ], 3),
  "Conv2D 4 x 4": (binding) =>
    operation(binding, "Conv2D", convolution, [zeros(binding, [1, 4, 4, 1]), zeros(binding, [2, 2, 1, 1])]),
};

/** Microseconds for one turn of `run`, over `turns` of them. */
export function microseconds(run, turns) {
  const start = performance.now();
  for (let i = 0; i < turns; i++) run();
  return (performance.now() - start) * 1000 / turns;
}

function zeros(binding, shape) {
  return binding.createTensor(shape, float, new Float32Array(shape.reduce((product, size) => product * size, 1)));
}

/** Runs an operation and frees its outputs. */
function operation(binding, op, attributes, inputs, outputs = 1) {
  return () => {
    for (const { id } of binding.executeOp(op, attributes, inputs, outputs)) binding.deleteTensor(id);
  };
}
