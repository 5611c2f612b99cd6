"""A GPT-2's folder as a graph for ONNX Runtime, of the fused operators that its own optimizer would put there.

Inputs: ids [B, T], positions [T], the cache of each layer [B, H, S, D/H], how many of its S slots hold a token less one
(`seqlens` [B]) and how many do (`total`). Outputs: the next token of each row [B], the logits [B, V], and the caches: the
attention writes new keys and values where the old ones lie when both are bound to the same memory.
"""

import json
from os.path import join

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

CONTRIB = "com.microsoft"


def write_onnx(model, path):
    with open(join(model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    weights = load_file(join(model, "model.safetensors"))
    weights = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    H, size, epsilon = config["n_head"], config["n_embd"] // config["n_head"], config["layer_norm_epsilon"]
    nodes, constants = [], []

    def constant(name, values=None):
        tensor = numpy.asarray(weights[name] if values is None else values, order="C")
        constants.append(numpy_helper.from_array(tensor, name))
        return name

    def node(op, inputs, outputs, domain="", **attributes):
        nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def norm_of_sum(x, change, bias, norm, total):
        """The layer norm of x + change + bias; the sum itself is called `total`."""
        inputs = [x, change, constant(f"{norm}.weight"), constant(f"{norm}.bias"), constant(bias)]
        return node("SkipLayerNormalization", inputs, [f"{norm}.out", "", "", total], CONTRIB, epsilon=epsilon)

    floats, cache_shape = TensorProto.FLOAT, ["B", H, "S", size]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", "T"]),
        helper.make_tensor_value_info("positions", TensorProto.INT64, ["T"]),
        helper.make_tensor_value_info("seqlens", TensorProto.INT32, ["B"]),
        helper.make_tensor_value_info("total", TensorProto.INT32, []),
    ]
    outputs = [
        helper.make_tensor_value_info("next", TensorProto.INT64, ["B"]),
        helper.make_tensor_value_info("logits", floats, ["B", config["vocab_size"]]),
    ]

    words = node("Gather", [constant("wte.weight"), "ids"], ["words"])
    places = node("Gather", [constant("wpe.weight"), "positions"], ["places"])
    x = node("Add", [words, places], ["x"])
    first = [x, constant("h.0.ln_1.weight"), constant("h.0.ln_1.bias")]
    normal = node("LayerNormalization", first, ["h.0.ln_1.out"], epsilon=epsilon)
    for i in range(config["n_layer"]):
        h = f"h.{i}"
        past, present = ([f"{when}.{i}.{kind}" for kind in ("key", "value")] for when in ("past", "present"))
        inputs += [helper.make_tensor_value_info(name, floats, cache_shape) for name in past]
        outputs += [helper.make_tensor_value_info(name, floats, cache_shape) for name in present]

        product = node("MatMul", [normal, constant(f"{h}.attn.c_attn.weight")], [f"{h}.product"])
        qkv = node("Add", [product, constant(f"{h}.attn.c_attn.bias")], [f"{h}.qkv"])
        attend, heads = [qkv, "", "", *past, "seqlens", "total"], {"num_heads": H, "kv_num_heads": H}
        attended = node("GroupQueryAttention", attend, [f"{h}.attended", *present], CONTRIB, **heads)
        change = node("MatMul", [attended, constant(f"{h}.attn.c_proj.weight")], [f"{h}.attn.out"])
        normal = norm_of_sum(x, change, f"{h}.attn.c_proj.bias", f"{h}.ln_2", f"{h}.x")

        wide = node("MatMul", [normal, constant(f"{h}.mlp.c_fc.weight")], [f"{h}.wide"])
        wide = node("FastGelu", [wide, constant(f"{h}.mlp.c_fc.bias")], [f"{h}.gelu"], CONTRIB)
        change = node("MatMul", [wide, constant(f"{h}.mlp.c_proj.weight")], [f"{h}.mlp.out"])
        next_norm = f"h.{i + 1}.ln_1" if i + 1 < config["n_layer"] else "ln_f"
        normal, x = norm_of_sum(f"{h}.x", change, f"{h}.mlp.c_proj.bias", next_norm, f"h.{i + 1}.in"), f"h.{i + 1}.in"

    last = node("Gather", [normal, constant("last", numpy.int64(-1))], ["last.out"], axis=1)
    node("MatMul", [last, constant("head", weights["wte.weight"].T)], ["logits"])
    node("ArgMax", ["logits"], ["next"], axis=-1, keepdims=0)
    graph = helper.make_graph(nodes, "gpt2", inputs, outputs, constants)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=10), path)
