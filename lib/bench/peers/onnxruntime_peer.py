"""ONNX Runtime: a fused graph, its cache bound once and written in place; int8 by its own dynamic quantization."""

from os.path import join
from time import perf_counter

import numpy
import onnxruntime
from onnx import TensorProto
from onnx_graph import write_onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from worker import made_once, serve


class OnnxRuntime:
    def __init__(self, model, cache, dtype, threads):
        file = made_once(join(cache, "onnx-float32.onnx"), lambda path: write_onnx(model, path))
        if dtype == "int8":
            file = made_once(join(cache, "onnx-int8.onnx"), lambda path: quantize(file, path))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads sleep
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        shapes = {value.name: value.shape for value in self.session.get_inputs()}
        self.caches = [(name, shape) for name, shape in shapes.items() if name.startswith("past.")]
        self.versions = {"onnxruntime": onnxruntime.__version__}
        self.about = "fused graph, GroupQueryAttention on a cache written in place, I/O binding"

    def bind_caches(self, batch_size, slots):
        """A binding in which every cache is read and written in the same memory."""
        binding = self.session.io_binding()
        for name, (_, heads, _, size) in self.caches:
            zeros = numpy.zeros((batch_size, heads, slots, size), numpy.float32)
            cache = onnxruntime.OrtValue.ortvalue_from_numpy(zeros)
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(name.replace("past", "present"), cache)
        return binding

    def step(self, binding, ids, position, wanted):
        """ids [B, T], the first of them at `position` -> the output `wanted`."""
        total = position + ids.shape[1]
        binding.bind_cpu_input("ids", ids)
        binding.bind_cpu_input("positions", numpy.arange(position, total))
        binding.bind_cpu_input("seqlens", numpy.full(len(ids), total - 1, numpy.int32))
        binding.bind_cpu_input("total", numpy.array(total, numpy.int32))
        binding.bind_output(wanted, "cpu")
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[-1].numpy()

    def generate(self, ids, batch_size, max_tokens):
        start = perf_counter()
        binding = self.bind_caches(batch_size, len(ids) + max_tokens)
        tokens = [self.step(binding, numpy.array([ids] * batch_size), 0, "next")]
        first = perf_counter()
        while len(tokens) < max_tokens:
            tokens.append(self.step(binding, tokens[-1][:, None], len(ids) + len(tokens) - 1, "next"))
        rows = numpy.stack(tokens, 1).tolist()
        return first - start, perf_counter() - first, rows

    def logits(self, ids):
        return self.step(self.bind_caches(1, len(ids)), numpy.array([ids]), 0, "logits")[0]


def quantize(source, path):
    """Weights to int8, a scale for each column; activations to int8 as they come."""
    quantize_dynamic(
        source,
        path,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )


serve(OnnxRuntime)
