/** Writes SavedModels, as TensorFlow's exporters do, without TensorFlow: a graph, its signatures and its weights. */

import { createRequire } from "node:module";
import { join } from "node:path";
import { type Attribute, AttributeType } from "../../lib/tensorflow/capi/attributes.ts";

const messages = createRequire(import.meta.url)("@tensorflow/tfjs-node-gpu/dist/proto/api_pb.js");

/** A node of a graph. */
export interface Node {
  name: string;
  op: string;
  /** Names of nodes, `x` or `x:1`. */
  inputs?: string[];
  attributes?: Attribute[];
  /** The value of a constant: one number or string, which stands for all elements. */
  value?: { dtype: number; shape: number[]; value: number | string };
}

/** Names and element types of a signature's tensors: `{ x: ["serving_default_x:0", 1] }`. */
export type Ports = Record<string, [name: string, dtype: number]>;

/** A model. */
export interface Model {
  nodes: Node[];
  signatures: Record<string, { inputs: Ports; outputs: Ports }>;
  /** The nodes that read and write the weights' file. */
  saver?: { filename: string; save: string; restore: string };
}

/** Writes `model` into `folder` with the tag `serve`. */
export async function writeSavedModel(folder: string, { nodes, signatures, saver }: Model): Promise<void> {
  const graph = new messages.GraphDef();
  graph.setVersions(new messages.VersionDef().setProducer(1000));
  graph.setNodeList(nodes.map(nodeDef));
  const metaGraph = new messages.MetaGraphDef();
  metaGraph.setMetaInfoDef(new messages.MetaGraphDef.MetaInfoDef().setTagsList(["serve"]));
  metaGraph.setGraphDef(graph);
  for (const [name, { inputs, outputs }] of Object.entries(signatures)) {
    const signature = new messages.SignatureDef();
    addPorts(signature.getInputsMap(), inputs);
    addPorts(signature.getOutputsMap(), outputs);
    metaGraph.getSignatureDefMap().set(name, signature);
  }
  if (saver) {
    metaGraph.setSaverDef(
      new messages.SaverDef().setFilenameTensorName(saver.filename).setSaveTensorName(saver.save)
        .setRestoreOpName(saver.restore).setVersion(2),
    );
  }
  const savedModel = new messages.SavedModel();
  savedModel.setSavedModelSchemaVersion(1);
  savedModel.addMetaGraphs(metaGraph);
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeFile(join(folder, "saved_model.pb"), savedModel.serializeBinary());
}

function nodeDef({ name, op, inputs = [], attributes = [], value }: Node) {
  const node = new messages.NodeDef();
  node.setName(name);
  node.setOp(op);
  node.setInputList(inputs);
  for (const attribute of attributes) node.getAttrMap().set(attribute.name, attrValue(attribute));
  if (value) {
    node.getAttrMap().set("dtype", new messages.AttrValue().setType(value.dtype));
    node.getAttrMap().set("value", new messages.AttrValue().setTensor(constant(value)));
  }
  return node;
}

function attrValue({ type, value }: Attribute) {
  if (Array.isArray(value) && type === AttributeType.type) {
    return new messages.AttrValue().setList(new messages.AttrValue.ListValue().setTypeList(value));
  }
  switch (type) {
    case AttributeType.type:
      return new messages.AttrValue().setType(value);
    case AttributeType.bool:
      return new messages.AttrValue().setB(value);
    case AttributeType.string:
      return new messages.AttrValue().setS(new TextEncoder().encode(value as string));
    case AttributeType.shape:
      return new messages.AttrValue().setShape(shapeOf(value as number[] | null));
  }
  throw new TypeError(`Cannot write an attribute of type ${type}.`);
}

function constant({ dtype, shape, value }: NonNullable<Node["value"]>) {
  const tensor = new messages.Tensor();
  tensor.setDtype(dtype);
  tensor.setTensorShape(shapeOf(shape));
  if (typeof value === "string") return tensor.setStringValList([new TextEncoder().encode(value)]);
  if (dtype === messages.DataType.DT_FLOAT) return tensor.setFloatValList([value]);
  if (dtype === messages.DataType.DT_INT64) return tensor.setInt64ValList([value]);
  return tensor.setIntValList([value]);
}

/** Null is a shape of which nothing is known. */
function shapeOf(sizes: number[] | null) {
  if (!sizes) return new messages.TensorShape().setUnknownRank(true);
  return new messages.TensorShape().setDimList(sizes.map((size) => new messages.TensorShape.Dim().setSize(size)));
}

// deno-lint-ignore no-explicit-any -- generated code without types
function addPorts(map: any, ports: Ports): void {
  for (const [key, [name, dtype]] of Object.entries(ports)) {
    map.set(key, new messages.TensorInfo().setName(name).setDtype(dtype).setTensorShape(shapeOf(null)));
  }
}
