"""llama.cpp: one `llama_batch` for all rows, each a sequence of its own. The library is the one that node-llama-cpp ships."""

import json
import os
from os.path import join
from time import perf_counter

import numpy
from gguf_file import write_gguf
from llama_library import VERSION, Batch, open_library
from worker import made_once, serve


class Llama:
    def __init__(self, model, cache, dtype, threads):
        with open(join(model, "config.json"), encoding="utf-8") as file:
            self.vocabulary = json.load(file)["vocab_size"]
        file = join(cache, f"llama-{dtype}.gguf")
        made_once(file, lambda path: write_gguf(model, path, quantize=dtype == "int8"))
        self.library = open_library(os.environ["LLAMA_CPP"])
        self.model = self.library.llama_model_load_from_file(
            file.encode(), self.library.llama_model_default_params()
        ) or fail(f"it cannot load {file}")
        self.threads = threads
        self.contexts = {}
        self.versions = {"llama.cpp": VERSION}
        self.about = f"{'q8_0' if dtype == 'int8' else 'f32'} weights, f16 cache, flash attention; one llama_batch a step"

    def context(self, *key):
        """An empty context for a number of sequences and of tokens in each. It is kept: what is new is slow at first."""
        if key not in self.contexts:
            batch_size, slots = key
            params = self.library.llama_context_default_params()
            params.n_seq_max = batch_size
            params.n_ctx = batch_size * slots
            params.n_batch = params.n_ubatch = batch_size * slots
            params.n_threads = params.n_threads_batch = self.threads
            self.contexts[key] = self.library.llama_init_from_model(self.model, params) or fail("it has no context")
        context = self.contexts[key]
        self.library.llama_memory_clear(self.library.llama_get_memory(context), False)
        return context

    def decode(self, context, tokens, position):
        """tokens [B, T], the first of them at `position` -> the logits after the last of each row, [B, V]."""
        B, T = tokens.shape
        token = numpy.ascontiguousarray(tokens, numpy.int32)
        pos = numpy.tile(numpy.arange(position, position + T, dtype=numpy.int32), B)
        counts = numpy.ones(B * T, numpy.int32)
        rows = numpy.repeat(numpy.arange(B, dtype=numpy.int32), T)
        pointers = rows.ctypes.data + 4 * numpy.arange(B * T, dtype=numpy.uintp)
        wanted = numpy.zeros((B, T), numpy.int8)
        wanted[:, -1] = 1
        arrays = [array.ctypes.data for array in (pos, counts, pointers, wanted)]
        if self.library.llama_decode(context, Batch(B * T, token.ctypes.data, None, *arrays)):
            fail("llama_decode did not work")
        return numpy.ctypeslib.as_array(self.library.llama_get_logits(context), (B, self.vocabulary))

    def generate(self, ids, batch_size, max_tokens):
        context = self.context(batch_size, len(ids) + max_tokens)
        start = perf_counter()
        tokens = [self.decode(context, numpy.array([ids] * batch_size), 0).argmax(-1)]
        first = perf_counter()
        while len(tokens) < max_tokens:
            logits = self.decode(context, tokens[-1][:, None], len(ids) + len(tokens) - 1)
            tokens.append(logits.argmax(-1))
        rows = numpy.stack(tokens, 1).tolist()
        return first - start, perf_counter() - first, rows

    def logits(self, ids):
        return self.decode(self.context(1, len(ids)), numpy.array([ids]), 0)[0]


def fail(reason):
    raise RuntimeError(f"llama.cpp: {reason}.")


serve(Llama)
