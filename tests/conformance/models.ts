/** The SavedModels that tfjs-node's own tests load, which its package does not bring. */

import { join } from "node:path";
import { attr, AttributeType, DataType } from "../../lib/tensorflow/capi/attributes.ts";
import { type Model, type Node, type Ports, writeSavedModel } from "../_support/saved_models.ts";

const { float, int32, int64, uint8 } = DataType;

/** Writes them into `folder`, under the names that the tests use. */
export async function writeTestModels(folder: string): Promise<void> {
  const models: Record<string, Model> = {
    times_three_float: { nodes: times("", float, 3), signatures: { serving_default: unary("", float) } },
    times_two_int: { nodes: times("", int32, 2), signatures: { serving_default: unary("", int32) } },
    uint8_multiply: { nodes: times("", uint8, 6), signatures: { serving_default: unary("", uint8) } },
    int64_multiply: { nodes: times("", int64, 6), signatures: { serving_default: unary("", int64) } },
    module_with_multiple_signatures: {
      nodes: [...times("", float, 3), ...times("_1", float, 2)],
      signatures: { serving_default: unary("", float), timestwo: unary("_1", float) },
    },
    model_single_input_multi_output: twoOutputs("serving_default_x"),
    model_multi_output: twoOutputs("serving_default_y"),
  };
  for (const [name, model] of Object.entries(models)) {
    await writeSavedModel(join(folder, "test_objects", "saved_model", name), model);
  }
}

/** x -> [x * factor], with `suffix` behind the names of the nodes. */
function times(suffix: string, dtype: number, factor: number): Node[] {
  return [
    placeholder(`serving_default_x${suffix}`, dtype),
    { name: `factor${suffix}`, op: "Const", value: { dtype, shape: [], value: factor } },
    {
      name: `product${suffix}`,
      op: "Mul",
      inputs: [`serving_default_x${suffix}`, `factor${suffix}`],
      attributes: [attr.type("T", dtype)],
    },
    call(`StatefulPartitionedCall${suffix}`, [`product${suffix}`], dtype),
  ];
}

/** x, y -> [2x, y], where y may be x itself. */
function twoOutputs(second: string): Model {
  const [x, factor, product] = times("", int32, 2), inputs: Ports = { x: ["serving_default_x:0", int32] };
  const nodes = [x, factor, product, call("StatefulPartitionedCall", ["product", second], int32)];
  if (second !== x.name) {
    nodes.push(placeholder(second, int32));
    inputs.y = [`${second}:0`, int32];
  }
  const outputs: Ports = {
    output_0: ["StatefulPartitionedCall:0", int32],
    output_1: ["StatefulPartitionedCall:1", int32],
  };
  return { nodes, signatures: { serving_default: { inputs, outputs } } };
}

function unary(suffix: string, dtype: number): { inputs: Ports; outputs: Ports } {
  return {
    inputs: { x: [`serving_default_x${suffix}:0`, dtype] },
    outputs: { output_0: [`StatefulPartitionedCall${suffix}:0`, dtype] },
  };
}

/** Exporters put the model into a function and call it; what the tests see of that is the node's name. */
function call(name: string, inputs: string[], dtype: number): Node {
  return { name, op: "IdentityN", inputs, attributes: [attr.type("T", inputs.map(() => dtype))] };
}

function placeholder(name: string, dtype: number): Node {
  return { name, op: "Placeholder", attributes: [attr.type("dtype", dtype), unknownShape] };
}

const unknownShape = { name: "shape", type: AttributeType.shape, value: null };
