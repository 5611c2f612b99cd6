"""llama.cpp: one `llama_batch` for all rows, each a sequence of its own. The library is the one that node-llama-cpp ships."""

import json
import os
from collections import deque
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
        """An empty context for a number of sequences, of tokens in each, and of tokens in a step. It is kept: what is new is
        slow at first."""
        if key not in self.contexts:
            sequences, slots, tokens = key
            params = self.library.llama_context_default_params()
            params.n_seq_max = sequences
            params.n_ctx = sequences * slots
            params.n_batch = params.n_ubatch = tokens
            params.n_threads = params.n_threads_batch = self.threads
            self.contexts[key] = self.library.llama_init_from_model(self.model, params) or fail("it has no context")
        context = self.contexts[key]
        self.library.llama_memory_clear(self.library.llama_get_memory(context), False)
        return context

    def decode(self, context, tokens, positions, sequences, wanted):
        """tokens [N] of some sequences, each at its position -> the logits after those that are wanted."""
        arrays = [numpy.array(values, numpy.int32) for values in (tokens, positions, sequences)]
        token, position, sequence = arrays
        counts, wanted = numpy.ones(len(tokens), numpy.int32), numpy.array(wanted, numpy.int8)
        pointers = sequence.ctypes.data + 4 * numpy.arange(len(tokens), dtype=numpy.uintp)
        data = [array.ctypes.data for array in (position, counts, pointers, wanted)]
        if self.library.llama_decode(context, Batch(len(tokens), token.ctypes.data, None, *data)):
            fail("llama_decode did not work")
        shape = int(wanted.sum()), self.vocabulary
        return numpy.ctypeslib.as_array(self.library.llama_get_logits(context), shape)

    def run(self, context, requests, seats, budget):
        """Answers requests, each a prompt and how many tokens it gets: those with a seat get a token in every step, and what
        is left of its `budget` of tokens goes to new ones, as in llama.cpp's own server."""
        seconds, answers = [[] for _ in requests], [[] for _ in requests]
        waiting, free, seated, start = deque(range(len(requests))), list(range(seats))[::-1], {}, perf_counter()
        while waiting or seated:
            feeds = [(seat, [answers[i][-1]], len(requests[i][0]) + len(answers[i]) - 1) for seat, i in seated.items()]
            room = budget - len(feeds)
            while waiting and free and len(requests[waiting[0]][0]) <= room:
                i, seat = waiting.popleft(), free.pop()
                seated[seat] = i
                feeds.append((seat, requests[i][0], 0))
                room -= len(requests[i][0])
            chosen = self.decode(
                context,
                [token for _, tokens, _ in feeds for token in tokens],
                [first + k for _, tokens, first in feeds for k in range(len(tokens))],
                [seat for seat, tokens, _ in feeds for _ in tokens],
                [k == len(tokens) - 1 for _, tokens, _ in feeds for k in range(len(tokens))],
            ).argmax(-1)
            now = perf_counter() - start
            for (seat, _, _), token in zip(feeds, chosen.tolist()):
                i = seated[seat]
                seconds[i].append(now)
                answers[i].append(token)
                if len(answers[i]) == requests[i][1]:
                    self.library.llama_memory_seq_rm(self.library.llama_get_memory(context), seat, -1, -1)
                    free.append(seat)
                    del seated[seat]
        return seconds, answers

    def generate(self, ids, batch_size, max_tokens):
        size = batch_size * (len(ids) + max_tokens)
        context = self.context(batch_size, len(ids) + max_tokens, size)
        seconds, tokens = self.run(context, [(ids, max_tokens)] * batch_size, batch_size, size)
        return seconds[0][0], seconds[0][-1] - seconds[0][0], tokens

    def serve(self, requests, seats, batching):
        longest = max(len(prompt) + count for prompt, count in requests)
        return self.run(self.context(seats, longest, 512), requests, seats, 512)

    def logits(self, ids):
        last = [False] * (len(ids) - 1) + [True]
        return self.decode(self.context(1, len(ids), len(ids)), ids, range(len(ids)), [0] * len(ids), last)[0]


def fail(reason):
    raise RuntimeError(f"llama.cpp: {reason}.")


serve(Llama)
