"""A GPT-2's folder as the one file that llama.cpp reads."""

import json
from os.path import join

import gguf
from safetensors.numpy import load_file

# The checkpoint's names in llama.cpp's. The linear layers are stored the other way round: [outputs, inputs].
NAMES = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
LAYER_NAMES = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output"}
LAYER_NAMES |= {"ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}


def write_gguf(model, path, quantize):
    """Writes `path`. With `quantize`, matrices are in Q8_0 as llama.cpp's own tool would have them."""
    with open(join(model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantize else gguf.LlamaFileType.ALL_F32)
    for name, tensor in load_file(join(model, "model.safetensors")).items():
        name = name.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".attn.masked_bias")) or name == "lm_head.weight":
            continue  # old checkpoints' mask, and a copy of wte
        if ".c_" in name and name.endswith("weight"):
            tensor = tensor.T.copy()
        if quantize and tensor.ndim == 2 and name != "wpe.weight":
            writer.add_tensor(renamed(name), gguf.quants.quantize(tensor, q8_0), raw_dtype=q8_0)
        else:
            writer.add_tensor(renamed(name), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def renamed(name):
    """`h.0.attn.c_attn.weight` -> `blk.0.attn_qkv.weight`"""
    part, kind = name.rsplit(".", 1)
    if part in NAMES:
        return f"{NAMES[part]}.{kind}"
    _, layer, part = part.split(".", 2)
    return f"blk.{layer}.{LAYER_NAMES[part]}.{kind}"
