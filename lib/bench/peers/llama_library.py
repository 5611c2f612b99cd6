"""The part of llama.cpp's C interface that the bench needs (llama.h of version 0.5.0), through ctypes."""

import ctypes
import glob
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint32, c_void_p
from os.path import join


class ModelParams(ctypes.Structure):
    _fields_ = [
        *[(name, c_void_p) for name in ("devices", "tensor_buft_overrides")],
        *[(name, c_int32) for name in ("n_gpu_layers", "split_mode", "load_mode", "lazy_mode", "main_gpu")],
        *[(name, c_void_p) for name in ("tensor_split", "progress_callback", "progress_data", "kv_overrides")],
        *[(name, c_bool) for name in ("vocab_only", "check_tensors", "use_extra_bufts", "no_host", "no_alloc", "load_mtp")],
    ]


class ContextParams(ctypes.Structure):
    _fields_ = [
        *[(name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")],
        *[(name, c_uint32) for name in ("n_outputs_max", "n_outputs_max_per_seq")],
        *[(name, c_int32) for name in ("n_threads", "n_threads_batch", "ctx_type", "rope_scaling_type")],
        *[(name, c_int32) for name in ("pooling_type", "attention_type", "flash_attn_type")],
        *[(name, c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor")],
        *[(name, c_float) for name in ("yarn_beta_fast", "yarn_beta_slow")],
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        *[(name, c_void_p) for name in ("cb_eval", "cb_eval_data")],
        *[(name, c_int32) for name in ("type_k", "type_v")],
        *[(name, c_void_p) for name in ("abort_callback", "abort_data")],
        *[(name, c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full", "kv_unified")],
        *[("samplers", c_void_p), ("n_samplers", c_size_t), ("ctx_other", c_void_p)],
    ]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", c_int32),
        *[(name, c_void_p) for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")],
    ]


VERSION = "0.5.0"  # whose llama.h this is
LOG = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
SIGNATURES = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [LOG, c_void_p]),
    "llama_model_default_params": (ModelParams, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_context_default_params": (ContextParams, []),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
    "llama_free": (None, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_get_logits": (POINTER(c_float), [c_void_p]),
}


def open_library(folder):
    """llama.cpp from the folder of node-llama-cpp's binaries, with the variant of its kernels that suits this CPU."""

    def find(name):
        for pattern in (f"lib{name}.*", f"{name}.dll"):
            for path in glob.glob(join(folder, pattern)):
                return path
        raise FileNotFoundError(f"There is no {name} library in {folder}. Remove the folder .bench and run this again.")

    ggml, llama = (ctypes.CDLL(find(name), mode=ctypes.RTLD_GLOBAL) for name in ("ggml", "llama"))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(llama, name)
        function.restype, function.argtypes = result, arguments
    llama.quiet = LOG(lambda level, text, data: None)  # kept, or else it would be freed
    llama.llama_log_set(llama.quiet, None)
    ggml.ggml_backend_load_all_from_path(folder.encode())
    llama.llama_backend_init()
    return llama
